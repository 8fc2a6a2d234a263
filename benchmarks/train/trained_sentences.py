"""A classifier of SST-2's sentences to the end: accuracy on rows never seen, and the same bits with workers killed."""

from pathlib import Path
from typing import Any

import _trained

TARGET = "the same bits while workers are killed at random; accuracy stated"
TRIALS = _trained.TRIALS
RECIPE = "sst2.yaml"
PLAIN = ["compress.artifacts={fp32: {stages: [{stage: export, max_batch: 8}]}}", "compress.batch_sizes=[1, 8]"]


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - runs of hours are kept
    rows = _trained.DATA / "sst2"
    settings = [f"data.arguments.train={rows}/train.parquet", f"data.arguments.test={rows}/validation.parquet"]
    facts = _trained.train(RECIPE, settings, killed=number > 0)
    return facts if number else {**facts, "test": _trained.test_accuracy(RECIPE, [*settings, *PLAIN])}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    test, same = trials[0]["test"], _trained.equal(trials)
    return {
        "test_accuracy": round(test["accuracy"], 4), "test_rows": test["rows"], "equal": same,
        "kills": len(trials[-1]["deaths"]), "training_s": [one["training_s"] for one in trials],
        "reached": len(trials) >= TRIALS and same and bool(trials[-1]["deaths"]),
    }  # fmt: skip
