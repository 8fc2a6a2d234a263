"""SIGKILL of a worker: seconds until the next step is done, beside plain torchrun on the same model.

One agent, two workers, ResNet-8 at batch 16. In a trial each side starts once and has one of its workers killed twice;
the first death of an agent's life is among them. Plain torchrun runs `_plain.py`: DDP, a checkpoint every 50 steps.
Lost work is what was computed twice, in seconds of steps.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import _net
import psutil

TARGET = "median at most 1.0 s on a quiet machine and ahead of plain torchrun; lost work at most one step"
TRIALS = 5
_DEATHS = 2
_STEPS_BETWEEN = 12
_WAIT_S = 240.0
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Look:
    """What a training shows: its steps with their world's number, that number now, and its workers."""

    steps: list[dict[str, Any]]
    world: int
    pids: list[int]

    @property
    def last_step(self) -> int:
        return int(self.steps[-1]["step"]) if self.steps else 0


def trial(folder: Path, number: int) -> dict[str, Any]:
    sides = [emberline, plain] if number % 2 == 0 else [plain, emberline]
    return {side.__name__: side(folder / side.__name__) for side in sides}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    deaths = {side: [d for trial in trials for d in trial[side]] for side in ("emberline", "plain")}
    facts: dict[str, Any] = {}
    for side, many in deaths.items():
        facts[f"{side}_s"] = round(median(d["seconds"] for d in many), 2)
        facts[f"{side}_s_first_death"] = round(median(d["seconds"] for d in many[::_DEATHS]), 2)
        facts[f"work_lost_{side}_s"] = round(median(d["work_lost_s"] for d in many), 2)
        facts[f"steps_lost_max_{side}"] = max(d["steps_lost"] for d in many)
    facts["steps_lost_max"] = facts["steps_lost_max_emberline"]
    ahead = facts["emberline_s"] <= min(1.0, facts["plain_s"])
    return {**facts, "reached": ahead and facts["steps_lost_max"] <= 1}


def emberline(folder: Path) -> list[dict[str, Any]]:
    recipe = _net.make(folder)
    command = [sys.executable, "-m", "emberline.cli", "train", recipe.name, "--nproc-per-node", "2"]
    command += ["--set", "train.batch_size=16", "--set", "train.virtual_shards=4"]  # _plain.py's batch
    log = folder / "runs" / "net" / "log.jsonl"

    def look() -> Look:
        steps, world, pids = [], 0, []
        for event in _lines(log):
            if event["event"] == "world":
                world, pids = event["generation"], event["pids"]
            elif event["event"] == "step":
                steps.append({"time": event["time"], "step": event["step"], "world": world})
        return Look(steps, world, pids)

    return _deaths(command, folder, look)


def plain(folder: Path) -> list[dict[str, Any]]:
    _net.make(folder)
    script = str(_HERE / "_plain.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=9"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", script, str(folder)]

    def look() -> Look:
        steps = [{**line, "world": line["restarts"]} for line in _lines(folder / "plain.jsonl")]
        pids = [one.pid for one in psutil.process_iter(["cmdline"]) if _is_worker(one.info["cmdline"] or [])]
        return Look(steps, steps[-1]["world"] if steps else 0, sorted(pids))

    def _is_worker(words: list[str]) -> bool:
        return words[-2:] == [script, str(folder)] and "torch.distributed.run" not in words

    return _deaths(command, folder, look)


def _deaths(command: list[str], folder: Path, look: Callable[[], Look]) -> list[dict[str, Any]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with (folder / "output").open("wb") as output:
        launcher = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        return [_death(launcher, look) for _ in range(_DEATHS)]
    finally:
        for one in [*psutil.Process(launcher.pid).children(recursive=True), launcher]:
            one.kill()
        launcher.wait()


def _death(launcher: "subprocess.Popen[bytes]", look: Callable[[], Look]) -> dict[str, Any]:
    """Waits for some steps, kills the last worker, waits for the first step of the world after it."""
    begun = look().last_step
    before = _wait(launcher, look, lambda now: now.last_step >= begun + _STEPS_BETWEEN and bool(now.pids))
    victim, killed_at = before.pids[-1], time.time()
    os.kill(victim, signal.SIGKILL)
    after = _wait(launcher, look, lambda now: any(step["world"] > before.world for step in now.steps))
    first = next(step for step in after.steps if step["world"] > before.world)
    old = [step for step in after.steps if step["world"] == before.world]
    step_s = median(b["time"] - a["time"] for a, b in pairwise(old[-10:]))
    lost = max(0, old[-1]["step"] + 1 - first["step"])
    return {
        "pid": victim, "step": old[-1]["step"], "generation": before.world, "generation_after": first["world"],
        "seconds": round(first["time"] - killed_at, 3), "steps_lost": lost,
        "step_s": round(step_s, 4), "work_lost_s": round(lost * step_s, 3), "load_average": os.getloadavg()[0],
    }  # fmt: skip


def _wait(launcher: "subprocess.Popen[bytes]", look: Callable[[], Look], ready: Callable[[Look], bool]) -> Look:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline and launcher.poll() is None:
        if ready(now := look()):
            return now
        time.sleep(0.02)
    raise TimeoutError(f"{launcher.args}: code {launcher.poll()}")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.is_file() else []
