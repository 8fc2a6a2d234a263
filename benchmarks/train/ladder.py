"""Six steps from a quick look to a scaled training of the digits: time and accuracy after each.

A tenth of the rows → the device → early stopping → a larger batch → Parquet → several workers. Each step is one real
`emberline train`; accuracy is that of the validation rows. The device's row stays unmeasured where there is no GPU.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from emberline.data import ArrayRows
from emberline.data.digits import digits

TARGET = "a table of six steps; the GPU's row unmeasured until there was one"
TRIALS = 1
ROOT = Path(__file__).parents[2]
STEPS = ("tenth", "device", "early_stopping", "larger_batch", "parquet", "workers")
_STOP = ["train.epochs=30", "train.early_stopping={patience: 3}"]
# the rate grows with the square root of the batch, as is usual with AdamW
_LARGE = ["train.batch_size=128", "train.optimizer.learning_rate=0.00424"]
SETTINGS: dict[str, list[str]] = {
    "tenth": ["data.sample=0.1"], "early_stopping": _STOP, "larger_batch": [*_STOP, *_LARGE],
    "parquet": [*_STOP, *_LARGE], "workers": [*_STOP, *_LARGE],
}  # fmt: skip


def trial(folder: Path, number: int) -> dict[str, Any]:
    parquet = write(folder)
    table: dict[str, Any] = {}
    for step in STEPS:
        if step == "device" and not torch.cuda.is_available():
            table[step] = "unmeasured: no GPU here"
            continue
        settings = [*SETTINGS.get(step, []), *(parquet if step in STEPS[4:] else [])]
        table[step] = train(folder, step, settings, workers=2 if step == "workers" else 1)
    return {"table": table, "number": number}


def train(folder: Path, run: str, settings: list[str], *, workers: int) -> dict[str, Any]:
    """One training; seconds with the start of the workers, and of the steps alone."""
    command = [sys.executable, "-m", "emberline.cli", "train", str(ROOT / "recipes" / "digits.yaml")]
    command += ["--runs", str(folder / "runs"), "--nproc-per-node", str(workers)]
    for setting in [f"run={run.replace('_', '-')}", *settings]:
        command += ["--set", setting]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=1200)
    seconds = time.perf_counter() - start
    facts = json.loads((folder / "runs" / run.replace("_", "-") / "manifest.json").read_text())["facts"]
    kept = {key: facts[key] for key in ("accuracy", "rows", "epochs", "steps")}
    return {"seconds": round(seconds, 1), "training_s": facts["seconds"], "workers": workers, **kept}


def write(folder: Path) -> list[str]:
    """The digits as Parquet; the settings that read them from there."""
    splits = digits()
    for name in ("train", "validation", "test"):
        rows = getattr(splits, name)
        assert isinstance(rows, ArrayRows)
        flat = pa.array(rows.inputs["pixels"].reshape(-1).astype(np.float32))
        table = pa.table({"pixels": pa.FixedSizeListArray.from_arrays(flat, 64), "label": rows.labels})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=100)
    arguments = {name: str(folder / f"{name}.parquet") for name in ("train", "validation", "test")}
    whole = json.dumps({**arguments, "inputs": {"pixels": "pixels"}, "label": "label"})
    return ["data.source=emberline.data.parquet:parquet", f"data.arguments={whole}"]


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    table = trials[-1]["table"]
    measured = [step for step in STEPS if isinstance(table.get(step), dict)]
    return {**table, "reached": set(measured) >= set(STEPS) - {"device"}}
