"""What scripts/setup.sh promises about processes, with a python that only pretends to install."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from emberline import process

ROOT = Path(__file__).parents[1]
PRETENDER = """#!/usr/bin/env bash
case "$*" in
    *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; printf '#!%s/.venv/bin/python\\n' "$PWD" >.venv/bin/pip;;
    *"pip install"*)
        echo "Collecting torch"
        echo "Installing collected packages: a, b, c"
        mkdir -p .venv/lib/python3.11/site-packages/a-1.dist-info
        echo $$ >>pids
        sleep 600 &
        echo $! >>pids
        while [ ! -e gate ]; do sleep 0.1; done
        touch .venv/bin/emberline; chmod +x .venv/bin/emberline
        kill $!;;
esac
"""


class Setup:
    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, []
        (folder / "scripts").mkdir()
        for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt", "hatch_build.py"):
            shutil.copy(ROOT / name, folder / name)
        (folder / "Makefile").write_text("setup:\n\t@scripts/setup.sh\n")
        (folder / "tools").mkdir()
        for name, text in (("python", PRETENDER), ("g++", "#!/bin/sh\n")):  # g++, lest it is installed
            (folder / "tools" / name).write_text(text)
            (folder / "tools" / name).chmod(0o755)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with (self.folder / name).open("wb") as log:
            one = subprocess.Popen(
                ["make", "--no-print-directory", "setup"], cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True,
                env={**os.environ, "PATH": f"{self.folder}/tools:{os.environ['PATH']}", "PYTHON": "python",
                     "HEARTBEAT_S": "1"},
            )  # fmt: skip
        self.started.append(one)
        return one

    def said(self, name: str, text: str) -> None:
        process.wait_until(lambda: text in (self.folder / name).read_text(), 30, f"{text!r} in {name}")

    def installers(self) -> list[psutil.Process]:
        file = self.folder / "pids"
        process.wait_until(lambda: file.is_file() and len(file.read_text().split()) >= 2, 12, "pip's start")
        return [psutil.Process(int(pid)) for pid in file.read_text().split() if psutil.pid_exists(int(pid))]


@pytest.fixture
def setup(tmp_path):
    one = Setup(tmp_path)
    yield one
    (tmp_path / "gate").touch()
    for make in one.started:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
        make.wait()


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("setpriv"), reason="needs util-linux")
@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_setup_takes_pip_along_when_it_is_stopped(setup, how):
    make = setup.start("log")
    family = setup.installers()
    assert len(family) == 2
    if how == "interrupt":  # as a terminal sends it: to the foreground's whole group
        os.killpg(make.pid, signal.SIGINT)
    else:
        make.kill()
    make.wait(20)
    process.wait_until(lambda: not any(alive(one) for one in family), 20, "the end of pip and its child")
    setup.said("log", "setup: stopped")
    assert not (setup.folder / ".venv" / ".emberline-setup").exists()


@pytest.mark.skipif(not shutil.which("flock"), reason="needs util-linux")
def test_a_second_setup_waits_for_the_first_and_finds_all_done(setup):
    first = setup.start("first")
    setup.installers()
    setup.said("first", "setup: Collecting torch")
    setup.said("first", "setup: 1 of 3 packages installed, ")
    second = setup.start("second")
    setup.said("second", "setup: another setup is at work here; waiting")
    (setup.folder / "gate").touch()
    assert first.wait(20) == second.wait(20) == 0
    assert "done; everything is in .venv" in (setup.folder / "first").read_text()
    assert (setup.folder / "second").read_text().count("\n") == 1  # nothing was installed again


def alive(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
