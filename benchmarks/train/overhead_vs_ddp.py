"""A compute-bound step with 12 virtual shards, beside the same step under DistributedDataParallel.

ResNet-8, batch 96, two workers of one thread each; both sides are this package's loop, so that the difference is the
reduction: 12 backward passes of 8 rows in a tree against two of 48 with DDP's all-reduce.
"""

from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import _net
import _worlds

TARGET = "at most 1.05 times DDP's step"
TRIALS = 7
_STEPS = 20
_WARM = 5
_QUIET = ("train.snapshot_every=100000", "train.checkpoint_every_s=1000")


def trial(folder: Path, number: int) -> dict[str, Any]:
    sides = ["virtual", "ddp"] if number % 2 == 0 else ["ddp", "virtual"]
    return {f"{side}_step_s": step_s(folder / side, f"train.reduce={side}") for side in sides}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    ratio = median(one["virtual_step_s"] / one["ddp_step_s"] for one in trials)
    return {
        "compute_bound": round(ratio, 3),
        "virtual_step_s": median(one["virtual_step_s"] for one in trials),
        "ddp_step_s": median(one["ddp_step_s"] for one in trials),
        "reached": ratio <= 1.05,
    }


def step_s(folder: Path, setting: str) -> float:
    """The median step of a run, its first steps left out."""
    recipe, run = _net.make(folder), folder / "runs" / "net"
    with _worlds.world(recipe, 2, settings=(setting, *_QUIET)) as workers:
        _worlds.wait_for_step(run, workers, 1, _STEPS, timeout_s=300)
    times = [event["time"] for event in _worlds.events(run, "step")][_WARM:]
    return round(median(later - earlier for earlier, later in pairwise(times)), 4)
