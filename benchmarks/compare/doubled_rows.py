"""Rows that a shipper wrote twice: the assessment of data where a tenth is there twice equals that where nothing is.

Mutant: `MUTANT=undeduplicated` counts rows as they are; `mutants.py` runs it.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from _rows import experiment, make

from emberline.compare import queries
from emberline.compare.observe import observe

TARGET = "equal in every sum"
TRIALS = 1


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the rows are the same
    once, twice = folder / "once", folder / "twice"
    make(once, 16_000, 5)
    shutil.copytree(once, twice)
    for path in twice.glob("*/part=*/a.parquet"):
        rows = pq.read_table(path)
        pq.write_table(rows.slice(0, len(rows) // 10), path.with_name("b.parquet"))
    expected = observe(experiment(), once)
    if os.environ.get("MUTANT") == "undeduplicated":
        queries.COPIES = queries.REPORTED_COPIES = "SELECT 0, 0"
    found = observe(experiment(), twice)
    pairs = [(expected.arm(name), found.arm(name)) for name in expected.arms]
    far = [abs(a.requests - b.requests) + abs(a.units - b.units) for a, b in pairs]
    far += [abs(a.metrics[key].mean - b.metrics[key].mean) for a, b in pairs for key in a.metrics]
    return {"requests": sum(a.requests for a, _ in pairs), "largest_difference": max(far)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    worst = max(trial["largest_difference"] for trial in trials)
    return {"requests": trials[0]["requests"], "largest_difference": worst, "reached": worst <= 1e-12}
