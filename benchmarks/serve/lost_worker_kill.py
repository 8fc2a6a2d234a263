"""Requests lost or hung while workers are killed by SIGKILL, seen from clients of the router."""

import random
from pathlib import Path
from typing import Any

from _stack import Load, kill, stack, tally, totals, under_load

TARGET = "20 kills of one of two workers: no wrong answer, none hung, and errors of at most the batch, within 1 s"
TRIALS = 4
KILLS = 5


def trial(folder: Path, number: int) -> dict[str, Any]:
    chance = random.Random(number)
    with stack(folder) as running, Load(running) as load:
        kills = []
        for _ in range(KILLS):
            pids = running.workers("1.0")
            victim = chance.choice(pids)
            kills.append(
                under_load(
                    load,
                    lambda victim=victim: kill(victim),
                    lambda victim=victim: len(pids := running.workers("1.0")) == 2 and victim not in pids,
                    "two workers again",
                )
            )
    return {"kills": kills, "all": tally(load.asked)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    total = totals(trials)
    kills = [kill for one in trials for kill in one["kills"]]
    return {
        **total,
        "kills": len(kills),
        "longest_error_s": max(one["all"]["longest_error_s"] for one in trials),
        "slowest_heal_s": max(kill["healed_s"] for kill in kills),
        "reached": total["wrong"] == total["hung"] == 0
        and total["error"] + total["refused"] <= 32 * len(kills)
        and max(one["all"]["longest_error_s"] for one in trials) <= 1.0,
    }
