"""A worker that stands still: seconds until it is named, whether the right one is, and whether a slow one is spared.

One agent, three workers, steps well under a second. In a trial one of them at random is stopped by SIGSTOP, one sleeps
in its own code, and one computes for 20 s in a single step: the first two must be replaced, the third must not. A hang
counts only with the pid that was to be named and the changed generation on record. Plain torchrun is not beside it: it
sees no hang before the collective's timeout, 30 minutes by default.
"""

import os
import random
import re
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _agents
import _worlds

TARGET = "at most 5 s at steps under 1 s, the right rank each time, and a step of 20 s is let go on"
TRIALS = 5
_LONG_S = 20.0

_HOOK = """

import os, time
from pathlib import Path
HERE = Path(__file__).parent
rank, quiet = os.environ.get("RANK"), augment

def augment(inputs):
    order = HERE / f"busy-{rank}"
    if order.exists():
        order.rename(HERE / "busy")
        until = time.monotonic() + float((HERE / "busy").read_text())
        while time.monotonic() < until:
            pass
        (HERE / "busy").rename(HERE / "finished")
    if (HERE / f"sleep-{rank}").exists():
        (HERE / f"sleep-{rank}").rename(HERE / "asleep")
        while True:
            time.sleep(0.05)
    return quiet(inputs)
"""


def trial(folder: Path, number: int) -> dict[str, Any]:
    _agents.endless(folder)
    with (folder / "benchtoy.py").open("a") as code:
        code.write(_HOOK)
    run, chance = folder / "runs" / "toy", random.Random(number)
    command = [sys.executable, str(_agents.HERE / "_launcher.py"), "train", "toy.yaml", "--nproc-per-node", "3"]
    with _agents.started([*command, "--max-restarts", "100"], folder):
        stopped = _hang(run, "stopped", chance.randrange(3))
        asleep = _hang(run, "asleep", chance.randrange(3))
        spared = _long_step(run, chance.randrange(3))
    return {"hangs": [stopped, asleep], "long_step": spared, "load": os.getloadavg()[0]}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    hangs = [one for trial in trials for one in trial["hangs"] if one["generation_after"] > one["generation"]]
    named = sum(one["named_pid"] == one["pid"] and one["named_rank"] == one["rank"] for one in hangs)
    detected = {
        kind: statistics.median(one["detected_s"] for one in hangs if one["kind"] == kind)
        for kind in ("stopped", "asleep")
    }
    spared = sum(trial["long_step"]["spared"] for trial in trials)
    return {
        "detected_s": round(max(detected.values()), 2), "named_rank": named == len(hangs),
        **{f"detected_{kind}_s": round(value, 2) for kind, value in detected.items()},
        "worst_s": round(max(one["detected_s"] for one in hangs), 2),
        "next_step_s": round(statistics.median(one["next_step_s"] for one in hangs), 2),
        "steps_lost_max": max(one["steps_lost"] for one in hangs),
        "hangs": len(hangs), "long_steps_spared": spared, "step_s": trials[0]["hangs"][0]["step_s"],
        "reached": len(trials) >= TRIALS and max(detected.values()) <= 5 and named == len(hangs) == 2 * len(trials)
        and spared == len(trials),
    }  # fmt: skip


def _hang(run: Path, kind: str, rank: int) -> dict[str, Any]:
    """Has one rank stand still; waits until it was named and training goes on."""
    before = _settled(run)
    steps = _worlds.events(run, "step")[-20:]
    known, restarts = len(_worlds.events(run, "hang")), len(_worlds.events(run, "restart"))
    if kind == "stopped":
        os.kill(before["pids"][rank], signal.SIGSTOP)
    else:
        (run.parents[1] / f"sleep-{rank}").touch()
        asleep = run.parents[1] / "asleep"
        _agents.wait(asleep.exists, 60, "a worker that sleeps")
        asleep.unlink()
    at, step = time.time(), _worlds.events(run, "step")[-1]["step"]
    named = _agents.wait(lambda: _worlds.events(run, "hang")[known:], 300, "a hang that is named")[0]
    after = _agents.wait_for_world(run, before["generation"], 300)
    first = next(one for one in _worlds.events(run, "step") if one["time"] > after["time"])
    restart = _agents.wait(lambda: _worlds.events(run, "restart")[restarts:], 60, "the restart's own record")[0]
    return {
        "kind": kind, "rank": rank, "pid": before["pids"][rank], "named_rank": named["rank"], "named_pid": named["pid"],
        "why": named["why"], "stack": [re.sub(r"\(.*/", "(", line) for line in named["stack"][:1]],
        "detected_s": round(named["time"] - at, 3), "step": step,
        "generation": before["generation"], "generation_after": after["generation"],
        "next_step_s": round(first["time"] - at, 3), "steps_lost": restart["steps_lost"],
        "step_s": round((steps[-1]["time"] - steps[0]["time"]) / (len(steps) - 1), 4),
    }  # fmt: skip


def _long_step(run: Path, rank: int) -> dict[str, Any]:
    """Has one rank compute for long in one step; whether its world outlives that."""
    before, folder = _settled(run), run.parents[1]
    (folder / f"busy-{rank}.new").write_text(str(_LONG_S))
    (folder / f"busy-{rank}.new").rename(folder / f"busy-{rank}")

    def over() -> bool:
        return (folder / "finished").exists() or _agents.worlds(run)[-1]["generation"] > before["generation"]

    _agents.wait(over, 300, "the end of a long step")
    last = _worlds.events(run, "step")[-1]["step"]
    _agents.wait(lambda: _worlds.events(run, "step")[-1]["step"] > last + 5, 60, "steps after it")
    now = _agents.worlds(run)[-1]["generation"]
    return {"rank": rank, "seconds": _LONG_S, "generation": now, "spared": now == before["generation"]}


def _settled(run: Path) -> dict[str, Any]:
    """The newest world, once it has done enough steps to know their median."""
    world = _agents.wait_for_world(run, 0, 300)

    def steps() -> bool:
        return sum(one["time"] > world["time"] for one in _worlds.events(run, "step")) > 20

    _agents.wait(steps, 120, "twenty steps")
    return world
