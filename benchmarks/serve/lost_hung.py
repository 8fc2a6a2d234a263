"""Requests lost or hung while workers are stopped by SIGSTOP, seen from clients of the router."""

import random
import signal
from pathlib import Path
from typing import Any

from _stack import Load, kill, stack, tally, totals, under_load

TARGET = "10 stopped workers of two: replaced, and nobody gets a wrong answer, an error, or none"
TRIALS = 2
STOPS = 5


def trial(folder: Path, number: int) -> dict[str, Any]:
    chance = random.Random(number)
    with stack(folder) as running, Load(running) as load:
        stops = []
        for _ in range(STOPS):
            victim = chance.choice(running.workers("1.0"))
            stops.append(
                under_load(
                    load,
                    lambda victim=victim: kill(victim, signal.SIGSTOP),
                    lambda victim=victim: len(pids := running.workers("1.0")) == 2 and victim not in pids,
                    "the stopped worker being replaced",
                )
            )
    return {"stops": stops, "all": tally(load.asked)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    total = totals(trials)
    return {
        **total,
        "stops": sum(len(one["stops"]) for one in trials),
        "longest_s": max(one["all"]["longest_s"] for one in trials),
        "slowest_heal_s": max(stop["healed_s"] for one in trials for stop in one["stops"]),
        "reached": total["wrong"] == total["hung"] == total["error"] == 0,
    }
