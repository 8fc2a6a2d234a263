"""Snapshots of a state of 100 MB at the pace that was chosen: what part of the time they take.

One worker, a linear net with nine million weights and AdamW. The figure is measured in the run itself: seconds spent in
`Snapshots.after_step` over seconds of the run, after the pace was chosen.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

import _net
import _worlds

TARGET = "at most 1.01 at the chosen k"
TRIALS = 5
_STEPS_AFTER = 40  # the chosen k must come round in them a few times


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the suite's signature
    recipe, run = _net.make(folder), folder / "runs" / "net"
    settings = ("model.factory=benchnet:large_net", "train.batch_size=192", "train.checkpoint_every_s=1000")
    with _worlds.world(recipe, 1, settings=settings, mutant="timed") as workers:
        _worlds.wait_for_step(run, workers, 1, 8, timeout_s=300)
        (chosen,) = _worlds.events(run, "snapshots")
        _worlds.wait_for_step(run, workers, 1, 8 + max(_STEPS_AFTER, 2 * chosen["every"]), timeout_s=600)
    spent = json.loads((folder / "timed.json").read_text())
    return {
        "every": chosen["every"], "write_ms": chosen["write_ms"], "step_ms": chosen["step_ms"],
        "state_mb": spent["state_mb"], "snapshots": spent["written"],
        "overhead": round(1 + spent["in_snapshots_s"] / (spent["seconds"] - spent["in_snapshots_s"]), 5),
    }  # fmt: skip


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    overhead = median(one["overhead"] for one in trials)
    return {
        "overhead": overhead, "worst": max(one["overhead"] for one in trials),
        "every": sorted(one["every"] for one in trials), "state_mb": trials[0]["state_mb"],
        "write_ms": median(one["write_ms"] for one in trials), "step_ms": median(one["step_ms"] for one in trials),
        "reached": overhead <= 1.01,
    }  # fmt: skip
