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
    return _trained.trial(RECIPE, settings, number, PLAIN)


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    return _trained.summary(trials)
