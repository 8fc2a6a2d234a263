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
    return _trained.trial(RECIPE, settings, number)


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    return _trained.summary(trials, least=0.82)
