"""ResNet-8 on CIFAR-10 to the end: accuracy on the test file, and the same bits with workers killed at random."""

from pathlib import Path
from typing import Any

import _trained

TARGET = "at least 82 % of the test file, and the same bits while workers are killed at random"
TRIALS = _trained.TRIALS
RECIPE = "cifar10.yaml"


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - runs of hours are kept
    rows = _trained.DATA / "cifar10"
    settings = [f"data.arguments.train={rows}/train-*.parquet", f"data.arguments.test={rows}/test.parquet"]
    facts = _trained.train(RECIPE, settings, killed=number > 0)
    return facts if number else {**facts, "test": _trained.test_accuracy(RECIPE, settings)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    test, same = trials[0]["test"], _trained.equal(trials)
    return {
        "test_accuracy": round(test["accuracy"], 4), "test_rows": test["rows"], "equal": same,
        "kills": len(trials[-1]["deaths"]), "training_s": [one["training_s"] for one in trials],
        "reached": len(trials) >= TRIALS and test["accuracy"] >= 0.82 and same and bool(trials[-1]["deaths"]),
    }  # fmt: skip
