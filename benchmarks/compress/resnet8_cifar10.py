"""ResNet-8 of MLPerf Tiny on CIFAR-10 in int8: what it loses, and latency and size beside the peers.

The run comes of `recipes/cifar10.yaml`: about half an hour of training on 2 cores.
"""

from pathlib import Path
from typing import Any

from _trained import ratios, side_by_side, trained

TARGET = "accuracy drop at most 0.3 points as measured, with its bound; latency and size beside the peers"
TRIALS = 1


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the same run each time
    run = trained("cifar10")
    packages = run.packages("int8")
    peers = [name for name, one in packages.items() if one.description["packages"][0]["backend"] != "aoti"]
    ours = [name for name in packages if name not in peers]
    measured = side_by_side([run.eager(folder), *packages.values()])
    return {"accuracy": run.losses("int8"), "latency": ratios(measured, ours, peers)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    last = trials[-1]
    return {**last, "reached": last["accuracy"]["drop"] <= 0.003}
