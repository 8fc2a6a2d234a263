"""Requests a second of a small MLP (64 → 256 → 10, JSON), against other servers around the same compiled package.

One server at a time, in alternating order, wrk at 1, 16 and 64 connections. CPU is that of the server's whole tree. A
peer that did not start or answered errors is on record with its reason, and no ratio is made of it.
"""

import json
from pathlib import Path

import _peers
import _throughput
from _models import mlp_artifact

TARGET = (
    "≥ 1.0 of all at 16 connections; at 64 ≥ 1.0 of all but mosec and ≥ 0.5 of mosec; ≥ 0.8 of FastAPI at 1; "
    "≥ 4 times stock TorchServe"
)
TRIALS = 5


def trial(folder: Path, number: int) -> dict[str, object]:
    artifact = mlp_artifact()
    body = folder / "body"
    body.write_text(json.dumps(json.loads((artifact / "probe.json").read_text())["instance"]))
    return _throughput.round_of(artifact, dict.fromkeys(_peers.NAMES, artifact), body, folder, number=number)


def summary(trials: list[dict[str, object]]) -> dict[str, object]:
    found = _throughput.summarise(trials)
    ratios = found["ratios"]
    wanted = {
        "16": dict.fromkeys(("mosec", "fastapi", "litserve", "bentoml", "triton"), 1.0) | {"torchserve_stock": 4.0},
        "64": dict.fromkeys(("fastapi", "litserve", "bentoml", "triton"), 1.0)
        | {"mosec": 0.5, "torchserve_stock": 4.0},
        "1": {"fastapi": 0.8},
    }
    missed = [
        f"{peer} at {connections}"
        for connections, peers in wanted.items()
        for peer, least in peers.items()
        if (ratios.get(peer, {}).get(connections) or 0.0) < least
    ]
    return {**found, "missed": missed, "reached": not missed}
