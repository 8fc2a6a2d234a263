"""Requests lost or hung in version switches: taken in, given the traffic, the old one let go, all while serving."""

import os
import time
from pathlib import Path
from typing import Any

from _stack import NOT_RIGHT, Load, stack, tally, totals

from emberline import process

TARGET = "50 switches: every answer right"
TRIALS = 5
SWITCHES = 10
# a mutant that must turn this key red: the old version is unregistered while it still has the traffic
MUTANT = os.environ.get("EMBERLINE_BENCH_MUTANT") == "unregister-first"


def trial(folder: Path, _number: int) -> dict[str, Any]:
    with stack(folder, experiment=True) as running, Load(running) as load:
        switches = []
        old, new = "1.0", "1.1"
        for revision in range(1, SWITCHES + 1):
            began = time.monotonic()
            running.place(new)
            process.wait_until(lambda new=new: new in running.served(), 120, "the new version being served")
            taken_in_s = time.monotonic() - began
            if MUTANT:
                _unregister(running, old)
            version = running.weigh(10_000 if new == "1.1" else 0, revision)
            process.wait_until(lambda version=version: running.config_version() == version, 60, "the new weights")
            running.remove(old)
            process.wait_until(lambda old=old: old not in running.served(), 120, "the old version being let go")
            switches.append({"to": new, "taken_in_s": round(taken_in_s, 2), **tally(load.since(began))})
            old, new = new, old
    return {"switches": switches, "all": tally(load.asked)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    total = totals(trials)
    switches = [switch for one in trials for switch in one["switches"]]
    return {
        **total,
        "switches": len(switches),
        "longest_s": max(one["all"]["longest_s"] for one in trials),
        "slowest_taken_in_s": max(switch["taken_in_s"] for switch in switches),
        "reached": not any(total[name] for name in NOT_RIGHT),
    }


def _unregister(running: Any, version: str) -> None:
    import httpx

    httpx.delete(f"http://{running.paper('serve')['management']}/models/reverse/{version}", timeout=60)
