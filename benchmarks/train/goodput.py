"""A worker killed every minute: what part of the undisturbed run's steps is still done?

Both runs train the same net on two workers for as long, one after the other; a killed worker's pid, the step and the
changed generation are on record. On a machine with other work the two halves see different loads, which shows as a
ratio above or below what the restarts explain; `lost_share` is what the run's own log says was lost.
"""

import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _agents
import _worlds

TARGET = "at least 0.95 of the undisturbed run's steps with a kill every 60 s"
TRIALS = 3
SPAN_S = 185.0
EVERY_S = 60.0


def trial(folder: Path, number: int) -> dict[str, Any]:
    order = ("calm", "killed") if number % 2 else ("killed", "calm")
    parts = {name: _run(folder / name, kills=name == "killed") for name in order}
    return {"goodput": parts["killed"]["steps_per_s"] / parts["calm"]["steps_per_s"], **parts}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    middle = statistics.median(one["goodput"] for one in trials)
    lost = statistics.median(one["killed"]["lost_share"] for one in trials)
    return {
        "kill_every_60s": round(middle, 4), "lost_share": round(lost, 4),
        "kills": sum(len(one["killed"]["kills"]) for one in trials),
        "reached": len(trials) >= TRIALS and middle >= 0.95,
    }  # fmt: skip


def _run(folder: Path, *, kills: bool) -> dict[str, Any]:
    _agents.endless(folder)
    run = folder / "runs" / "toy"
    command = [sys.executable, str(_agents.HERE / "_launcher.py"), "train", "toy.yaml", "--nproc-per-node", "2"]
    deaths = []
    with _agents.started(command, folder):
        world = _agents.wait_for_world(run, 0, 300)
        begun, first = time.time(), _worlds.events(run, "step")[-1]["step"]
        while (left := begun + SPAN_S - time.time()) > 0:
            time.sleep(min(left, EVERY_S))
            if kills and begun + SPAN_S - time.time() > 1:
                os.kill(world["pids"][-1], signal.SIGKILL)
                after = _agents.wait_for_world(run, world["generation"], 300)
                deaths.append(
                    {"pid": world["pids"][-1], "step": after["step"], "generation_after": after["generation"]}
                )
                world = after
        seconds, last = time.time() - begun, _worlds.events(run, "step")[-1]["step"]
    lost = sum(one["seconds_lost"] for one in _worlds.events(run, "restart"))
    return {"steps_per_s": (last - first) / seconds, "lost_share": lost / seconds, "kills": deaths}
