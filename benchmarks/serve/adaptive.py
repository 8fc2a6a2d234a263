"""Batches without waiting: latency at one connection and throughput at 64, against a delay of 0 and of 1 ms.

All three servers run at once and take turns within a trial, so what slows one slows all: `adaptive` (the default),
`delay_0` (TorchServe's own rule, at most two requests a batch) and `delay_1` (waits 1 ms for each batch).

The mutant `BENCH_MUTANT=stock` serves `adaptive` by TorchServe's own rule, which must miss the target.
"""

import json
import os
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from _emberline import served
from _models import archived, mlp_artifact
from _wrk import drive

TARGET = "p50 at 1 connection ≤ 1.1 times delay 0, throughput at 64 ≥ 0.95 times delay 1"
TRIALS = 5
SETTINGS: dict[str, dict[str, object]] = {
    "adaptive": {"take_waiting": False} if os.environ.get("BENCH_MUTANT") == "stock" else {},
    "delay_0": {"batch_delay_ms": 0, "take_waiting": False},
    "delay_1": {"batch_delay_ms": 1},
}
TURNS = 3
SECONDS = 3.0


def trial(folder: Path, number: int) -> dict[str, Any]:
    artifact = mlp_artifact()
    archive, keys = archived(artifact, folder, "model")
    body = folder / "body"
    body.write_text(json.dumps(json.loads((artifact / "probe.json").read_text())["instance"]))
    seen: dict[str, list[float]] = {}
    with ExitStack() as stack:
        servers = {}
        for name, settings in SETTINGS.items():
            address, pid = stack.enter_context(served(folder, [archive], keys, **settings))
            servers[name] = (f"http://{address}/predictions/model/1.0", pid)
            drive(servers[name][0], body, 32, 8.0, pid)
        for turn in range(TURNS):
            for name, (url, pid) in list(servers.items())[:: (-1) ** (turn + number)]:
                seen.setdefault(f"{name}_p50_ms_at_1", []).append(drive(url, body, 1, SECONDS, pid).p50_ms)
            for name, (url, pid) in list(servers.items())[:: (-1) ** (turn + number)]:
                seen.setdefault(f"{name}_rps_at_64", []).append(drive(url, body, 64, SECONDS, pid).rps)
    return {name: round(median(values), 3) for name, values in seen.items()}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    latency = median(one["adaptive_p50_ms_at_1"] / one["delay_0_p50_ms_at_1"] for one in trials)
    throughput = median(one["adaptive_rps_at_64"] / one["delay_1_rps_at_64"] for one in trials)
    stock = median(one["delay_0_rps_at_64"] / one["delay_1_rps_at_64"] for one in trials)
    return {
        "p50_at_1_to_delay_0": round(latency, 3),
        "rps_at_64_to_delay_1": round(throughput, 3),
        "rps_at_64_of_delay_0_to_delay_1": round(stock, 3),
        "reached": latency <= 1.1 and throughput >= 0.95,
    }
