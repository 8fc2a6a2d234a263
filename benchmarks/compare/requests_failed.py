"""Requests failed under load: weight changes, reloads of experiments, hot restarts, a SIGKILL of one of two Envoys.

Four connections ask without a pause worth the name; one that is told `connection: close` opens another.
"""

import os
import signal
from pathlib import Path
from typing import Any

from _router import Load, Router, router

from emberline import process

TARGET = "0 in 200 weight changes, 50 reloads and 10 hot restarts; a SIGKILL with two processes: those in flight only"
TRIALS = 5
CHANGES, RELOADS, RESTARTS, KILLS = 40, 10, 2, 2  # a trial; five of them make the target's numbers
CONNECTIONS = 8


def trial(folder: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with router(folder, "--processes", "2") as running:
        last = running.write("trial", 0, revision=number)
        running.start()
        running.await_config(last)
        steps = (
            ("weight_changes", _change_weights),
            ("reloads", _reload),
            ("hot_restarts", _restart),
            ("kills", _kill),
        )
        for name, work in steps:
            with Load(running.port, CONNECTIONS, pause_s=0.001) as load:
                load.more(200)
                done = work(running, load)
                load.more(200)
            found[name] = {"times": done, "requests": len(load.asked), "failed": load.failed}
    return found


def _change_weights(running: Router, _load: Load) -> int:
    for change in range(1, CHANGES + 1):
        running.await_config(running.write("trial", change * 10_000 // (CHANGES + 1), revision=1000 + change))
    return CHANGES


def _reload(running: Router, _load: Load) -> int:
    """Another spec: other routes and other clusters' metadata, not weights alone."""
    for reload in range(1, RELOADS + 1):
        running.await_config(running.write("trial", 5000, revision=2000 + reload, salt=f"salt-{reload}"))
    return RELOADS


def _restart(running: Router, load: Load) -> int:
    for _ in range(RESTARTS):
        before = set(running.paper["envoy_pids"])
        os.kill(running.child.pid, signal.SIGHUP)
        process.wait_until(lambda before=before: not before & set(running.paper["envoy_pids"]), 60, "the successors")
        load.more(300)
        # the predecessors end by themselves; what they still hold is part of the restart
        process.wait_until(lambda before=before: not any(map(_lives, before)), 60, "the predecessors' end")
    return RESTARTS


def _kill(running: Router, load: Load) -> int:
    for _ in range(KILLS):
        killed = running.paper["envoy_pids"][1]
        os.kill(killed, signal.SIGKILL)
        process.wait_until(lambda killed=killed: killed not in running.paper["envoy_pids"], 60, "its successor")
        load.more(500)
    return KILLS


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    said = {
        name: {key: sum(trial[name][key] for trial in trials) for key in ("times", "requests", "failed")}
        for name in trials[0]
    }
    clean = all(not said[name]["failed"] for name in ("weight_changes", "reloads", "hot_restarts"))
    in_flight = said["kills"]["times"] * CONNECTIONS
    return {**said, "in_flight_at_most": in_flight, "reached": clean and said["kills"]["failed"] <= in_flight}
