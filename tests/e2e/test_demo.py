"""The demo as a newcomer runs it: to its end, and killed on the way. Minutes, so it is not among the quick tests."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ports import four_free_ports
from processes import left_after

from emberline.process import free_port, require_free_port, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

GONE_WITHIN_S = 10.0


class Demo:
    """Demos in one folder, on ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.router, self.dashboard, self.first_serve_port = free_port(), free_port(), four_free_ports()

    def start(self, *options: str) -> "subprocess.Popen[str]":
        ports = ["--port", self.router, "--dashboard-port", self.dashboard, "--serve-port", self.first_serve_port]
        command = [sys.executable, "-m", "emberline.cli", "demo", *options, *map(str, ports)]
        log = (self.folder / "demo.log").open("w")
        return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, text=True)

    def run(self) -> str:
        code = self.start().wait(timeout=900)
        log = (self.folder / "demo.log").read_text()
        assert code == 0, log[-4000:]
        return log

    def stages(self) -> dict[str, str]:
        return {row["stage"]: row["outcome"] for row in json.loads((self.folder / "report/demo.json").read_text())}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    return Demo(tmp_path_factory.mktemp("demo"))


def kill_with_descendants_watched(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Sends the signal to the demo alone, and waits until all it had started are gone."""
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(number)
    process.wait(timeout=60)
    assert not left_after(started, GONE_WITHIN_S)


def test_a_demo_killed_in_training_is_resumed_by_the_next(demo: Demo) -> None:
    process = demo.start()
    wait_until(lambda: list(demo.folder.glob("runs/digits/checkpoints/step-*/manifest.json")), 120, "a checkpoint")
    kill_with_descendants_watched(process, signal.SIGKILL)


def test_the_demo_goes_through_every_stage_and_stops_everything(demo: Demo) -> None:
    log = demo.run()
    assert list(demo.stages()) == ["train", "compress", "archive", "serve and route", "compete", "compare"]
    assert "1.0, 1.1 behind Envoy" in demo.stages()["serve and route"]
    assert (demo.folder / "report/digits-int8/index.html").is_file()
    assert "verdict: " in log
    for port in (demo.router, demo.dashboard, *range(demo.first_serve_port, demo.first_serve_port + 4)):
        require_free_port(port, "the next demo")


def test_a_demo_killed_while_everything_is_up_leaves_nothing_and_the_next_reuses_the_rest(demo: Demo) -> None:
    (demo.folder / "state/up.json").unlink(missing_ok=True)
    process = demo.start()
    wait_until((demo.folder / "state/up.json").is_file, 240, "the stack")
    kill_with_descendants_watched(process, signal.SIGKILL)
    log = demo.run()
    assert "reused" in demo.stages()["train"]
    assert "verdict: " in log


def test_ctrl_c_stops_everything_in_order(demo: Demo) -> None:
    (demo.folder / "state/up.json").unlink(missing_ok=True)
    process = demo.start()
    wait_until((demo.folder / "state/up.json").is_file, 240, "the stack")
    kill_with_descendants_watched(process, signal.SIGINT)
    assert process.returncode == 130
    assert not (demo.folder / "state/up.json").exists()
