"""A stack as `emberline up` leaves it: its printed lines work, and it ends when told to. The recipe is a tiny one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from ports import four_free_ports
from processes import left_after

from emberline.process import free_port, wait_until

RECIPE = Path(__file__).parents[2] / "recipes/digits.yaml"
GONE_WITHIN_S = 10.0


def tiny_recipe(folder: Path) -> Path:
    """The digits with a small net, two epochs and one version that needs no compiler."""
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["model"]["arguments"] = {"width": 8}
    recipe["train"] |= {"epochs": 2, "warmup_steps": 0}
    recipe["compress"]["artifacts"] = {"fp32": {"stages": [{"stage": "export", "backends": ["onnx"]}]}}
    del recipe["compress"]["search"]  # there is no candidate to seek
    recipe["archive"]["versions"] = {"fp32": "1.0"}
    recipe["serve"]["workers"] = 1
    del recipe["experiment"]
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


class Up:
    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "up.log"
        self.recipe = tiny_recipe(folder)
        ports = [free_port(), free_port(), four_free_ports()]
        self.ports = [
            str(p) for pair in zip(("--port", "--dashboard-port", "--serve-port"), ports, strict=True) for p in pair
        ]

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "emberline.cli", "up", str(self.recipe), *self.ports]
        with self.log.open("wb") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)

    def ready(self, process: "subprocess.Popen[bytes]", timeout_s: float = 240) -> dict[str, object]:
        path = self.folder / "state/up.json"

        def content() -> dict[str, object] | None:
            assert process.poll() is None, self.log.read_text()[-3000:]
            return json.loads(path.read_bytes()) if path.is_file() else None

        return wait_until(content, timeout_s, "the stack")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Up:
    return Up(tmp_path_factory.mktemp("up"))


@pytest.fixture
def started(up: Up) -> Iterator["subprocess.Popen[bytes]"]:
    process = up.start()
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


def end(process: "subprocess.Popen[bytes]", number: signal.Signals, within_s: float) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.kill(process.pid, number)
    process.wait(timeout=60)
    assert not left_after(children, within_s)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_builds_ends_the_build(
    up: Up, started: "subprocess.Popen[bytes]", number: signal.Signals
) -> None:
    wait_until(lambda: psutil.Process(started.pid).children(recursive=True), 60, "the first verb")
    end(started, number, GONE_WITHIN_S)
    assert started.returncode == 130
    assert not list((up.folder / "store").glob("*.mar"))


def test_its_printed_lines_answer_and_down_stops_it(up: Up, started: "subprocess.Popen[bytes]") -> None:
    ready = up.ready(started)
    lines = ready["curl"]
    assert isinstance(lines, list)
    assert len(lines) == 2
    for line in lines:
        done = subprocess.run(["bash", "-c", line.replace("curl -s", "curl -sf")], capture_output=True, check=False)
        assert done.returncode == 0, line
        assert b"scores" in done.stdout
    page = subprocess.run(["curl", "-sf", str(ready["page"])], capture_output=True, check=False)
    assert page.returncode == 0
    assert b"<html" in page.stdout
    paper = up.folder / "state/route.json"
    before = json.loads(told := paper.read_bytes())
    psutil.Process(before["pid"]).kill()
    wait_until(lambda: paper.is_file() and paper.read_bytes() != told, 60, "the router's successor")
    after = json.loads(paper.read_bytes())
    assert after["pid"] != before["pid"]
    assert after["admin"] == before["admin"], "rollout would look in vain"
    children = psutil.Process(started.pid).children(recursive=True)
    down = [sys.executable, "-m", "emberline.cli", "down"]
    done = subprocess.run(down, cwd=up.folder, capture_output=True, check=False)
    assert done.stdout.strip() == b"stopped"
    assert started.wait(timeout=5) == 0
    assert not left_after(children, GONE_WITHIN_S)


def test_killing_it_leaves_nothing_and_the_next_reuses_what_was_built(
    up: Up, started: "subprocess.Popen[bytes]"
) -> None:
    up.ready(started, 120)
    assert "reused" in up.log.read_text()
    end(started, signal.SIGKILL, GONE_WITHIN_S)
