"""CPU of Envoy for a request: passed on as it is, and with stickiness, logging and API keys; beside none at all.

Both routers run at once and are asked in turns, so whatever else the machine does is done to both. Envoy's CPU is read
from its process before and after; the client's and the model's are theirs.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from _router import Router, ask_units, router

TARGET = "CPU per request stated; <= 200 us with everything on"
TRIALS = 5
REQUESTS, ROUNDS = 4000, 3
KEY = "k" * 24


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - rounds are alike
    folder.mkdir(exist_ok=True)
    (folder / "keys.yaml").write_text(yaml.safe_dump({"bench": KEY}))
    with router(folder / "plain") as plain, router(folder / "full", "--api-keys", str(folder / "keys.yaml")) as full:
        plain.start()
        wanted = full.write("trial", 5000)
        full.start()
        full.await_config(wanted)
        key = f"x-api-key: {KEY}\r\n"
        ways = {"plain": (plain, ""), "full": (full, key)}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        wall: dict[str, list[float]] = {name: [] for name in (*ways, "direct")}
        for _ in range(ROUNDS):
            for name, (running, more) in ways.items():
                used, took = _measured(running, more)
                cpu[name].append(used)
                wall[name].append(took)
            wall["direct"].append(_direct(plain))
    return {
        **{f"{name}_us": round(statistics.median(found), 1) for name, found in cpu.items()},
        **{f"{name}_wall_us": round(statistics.median(found), 1) for name, found in wall.items()},
    }


def _measured(running: Router, more: str) -> tuple[float, float]:
    """Microseconds of Envoy's CPU, and of the clock, a request."""
    envoy = psutil.Process(running.paper["envoy_pid"])
    units = [f"u{n}" for n in range(REQUESTS)]
    ask_units(running.port, units[:200], more=more)
    before, began = sum(envoy.cpu_times()[:2]), time.monotonic()
    ask_units(running.port, units, more=more)
    took = time.monotonic() - began
    return (sum(envoy.cpu_times()[:2]) - before) / REQUESTS * 1e6, took / REQUESTS * 1e6


def _direct(running: Router) -> float:
    units = [f"u{n}" for n in range(REQUESTS)]
    began = time.monotonic()
    ask_units(running.model_port, units)
    return (time.monotonic() - began) / REQUESTS * 1e6


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    medians = {name: statistics.median(trial[name] for trial in trials) for name in trials[0]}
    return {**medians, "reached": medians["full_us"] <= 200}
