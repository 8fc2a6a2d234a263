"""SIGKILL of a worker until all is as before, with one worker and with two, under a light load of the router."""

from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from _stack import Load, kill, stack, under_load

TARGET = "one worker: the next right answer within 4 s; two workers: no answer later than 1 s, none but right ones"
TRIALS = 3
KILLS = 3


def trial(folder: Path, _number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for workers in (1, 2):
        (folder / str(workers)).mkdir()
        with stack(folder / str(workers), workers=workers) as running, Load(running, connections=4) as load:
            found[str(workers)] = [_one_kill(running, load, workers) for _ in range(KILLS)]
    return found


def _one_kill(running: Any, load: Load, workers: int) -> dict[str, Any]:
    victim = running.workers("1.0")[0]
    facts = under_load(
        load,
        lambda: kill(victim),
        lambda: len(pids := running.workers("1.0")) == workers and victim not in pids,
        "the worker being replaced",
    )
    right = sorted(one.at + one.seconds for one in load.asked if one.outcome == "right")
    return {**facts, "longest_gap_s": round(max(b - a for a, b in pairwise(right)), 2)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    one, two = ([kill for trial in trials for kill in trial[workers]] for workers in ("1", "2"))
    facts = {
        "one_worker_gap_s": median(kill["longest_gap_s"] for kill in one),
        "one_worker_longest_gap_s": max(kill["longest_gap_s"] for kill in one),
        "one_worker_not_right": sum(kill["wrong"] + kill["refused"] + kill["error"] + kill["hung"] for kill in one),
        "two_workers_gap_s": median(kill["longest_gap_s"] for kill in two),
        "two_workers_longest_gap_s": max(kill["longest_gap_s"] for kill in two),
        "two_workers_not_right": sum(kill["wrong"] + kill["refused"] + kill["error"] + kill["hung"] for kill in two),
    }
    quick = facts["one_worker_gap_s"] <= 4.0 and facts["two_workers_gap_s"] <= 1.0
    return {**facts, "reached": quick and not facts["two_workers_not_right"]}
