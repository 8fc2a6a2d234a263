"""Requests lost or hung while TorchServe is killed and started again, seen from clients of the router."""

import signal
from pathlib import Path
from typing import Any

from _stack import Load, kill, stack, tally, totals, under_load

TARGET = "10 deaths of java, by SIGKILL and SIGTERM in turns: refused within 1 s with Retry-After, nobody wrong or hung"
TRIALS = 2
DEATHS = 5


def trial(folder: Path, number: int) -> dict[str, Any]:
    with stack(folder) as running, Load(running, pause_s=0.05) as load:
        deaths = []
        for death in range(DEATHS):
            before = running.paper("serve")["java_pid"]
            how = (signal.SIGKILL, signal.SIGTERM)[(number * DEATHS + death) % 2]
            deaths.append(
                under_load(
                    load,
                    lambda before=before, how=how: kill(before, how),
                    lambda before=before: running.paper("serve")["java_pid"] != before and running.readiness()["ready"],
                    "TorchServe being back",
                )
            )
    return {"deaths": deaths, "all": tally(load.asked)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    total = totals(trials)
    deaths = [death for one in trials for death in one["deaths"]]
    return {
        **total,
        "deaths": len(deaths),
        "longest_error_s": max(one["all"]["longest_error_s"] for one in trials),
        "slowest_heal_s": max(death["healed_s"] for death in deaths),
        "reached": total["wrong"] == total["hung"] == 0 and max(one["all"]["longest_error_s"] for one in trials) <= 1.0,
    }
