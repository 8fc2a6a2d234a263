"""Exposures lost and doubled in SIGKILLs of Envoy and of the router with its shipper, under load.

What the file system has is what Envoy had flushed: an answer that was out for longer than the flush interval before the
kill must have its exposure. For the younger ones the age of the oldest that was lost is the bound, in milliseconds.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from _router import Load, router

from emberline import process

TARGET = "in 20 SIGKILLs of each process: none lost that the file system had, none doubled; bound in ms stated"
TRIALS = 10
KILLS = 4  # a trial; Envoy and the router take turns, five trials each
FLUSH_S = 0.4  # twice the interval: the timer and the write


def trial(folder: Path, number: int) -> dict[str, Any]:
    whose = "envoy" if number % 2 == 0 else "router"
    kills: list[float] = []
    with router(folder, "--generation-s", "1") as running:
        last = running.write("trial", 5000)
        running.start()
        running.await_config(last)
        with Load(running.port, 4, pause_s=0.001) as load:
            for _ in range(KILLS):
                load.more(300)
                paper = running.paper
                kills.append(time.monotonic())
                if whose == "envoy":
                    os.kill(paper["envoy_pid"], signal.SIGKILL)
                    process.wait_until(
                        lambda paper=paper: running.paper["envoy_pid"] != paper["envoy_pid"], 30, "another Envoy"
                    )
                else:
                    os.kill(paper["pid"], signal.SIGKILL)
                    running.child.wait(30)
                    running.start()
            load.more(300)
        running.stop()
        rows = running.request_ids()
    answered = {one.request_id: one.at for one in load.asked if one.status == 200}
    missing = [at for request_id, at in answered.items() if request_id not in set(rows)] if answered else []
    ages = [min((kill - at for kill in kills if kill >= at - 0.05), default=0.0) for at in missing]
    return {
        "whose": whose,
        "kills": KILLS,
        "answered": len(answered),
        "doubled": len(rows) - len(set(rows)),
        "lost": sum(age > FLUSH_S for age in ages),
        "lost_unflushed": sum(age <= FLUSH_S for age in ages),
        "oldest_unflushed_ms": round(max((age * 1e3 for age in ages if age <= FLUSH_S), default=0.0)),
    }


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for whose in sorted({trial["whose"] for trial in trials}):
        own = [trial for trial in trials if trial["whose"] == whose]
        said[whose] = {
            name: sum(trial[name] for trial in own)
            for name in ("kills", "answered", "lost", "doubled", "lost_unflushed")
        }
        said[whose]["bound_ms"] = max(trial["oldest_unflushed_ms"] for trial in own)
    reached = not any(one["lost"] or one["doubled"] for one in said.values())
    return {**said, "reached": reached}
