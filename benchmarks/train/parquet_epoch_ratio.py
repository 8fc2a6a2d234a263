"""An epoch of ResNet-8 from JPEGs in Parquet against the same pictures decoded in memory: how much longer does it take?

One worker with one thread computes; the loader's threads have the other core. Both are timed in each trial, in an order
that changes from trial to trial, and must come to the same loss, bit for bit.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any

import _images
import torch

from emberline.data import Rows
from emberline.models.losses import cross_entropy
from emberline.models.resnet import resnet8
from emberline.train.batches import Batches, Plan
from emberline.train.determinism import make_deterministic
from emberline.train.gradients import Job, VirtualShards
from emberline.train.world import World

TARGET = "at most 1.1 (Petastorm's claim: ten times the data in eleven times the time)"
TRIALS = 5
ROWS, BATCH, SHARDS = 2560, 128, 4
_LIMIT = 1.1


def trial(folder: Path, number: int) -> dict[str, Any]:
    make_deterministic(1)
    paths = _images.write(folder, ROWS)
    memory, parquet = _images.in_memory(paths), _images.from_parquet(paths)
    runs = {
        "memory_s": lambda: epoch(memory, parquet, decoded=True),
        "parquet_s": lambda: epoch(parquet, parquet, decoded=False),
    }
    facts: dict[str, Any] = {}
    losses = set()
    for name in sorted(runs, reverse=number % 2 == 1):
        facts[name], loss = runs[name]()
        losses.add(loss)
    return {**facts, "ratio": facts["parquet_s"] / facts["memory_s"], "same_loss": len(losses) == 1}


def epoch(rows: Rows, like: Any, *, decoded: bool) -> tuple[float, float]:
    """Seconds of one epoch in the order of `like`, and the sum of its losses."""
    plan = Plan(1, ROWS, 1, BATCH, SHARDS)
    ordered = _Ordered(rows, like)
    start = time.perf_counter()
    batches = Batches(ordered, plan, _images.preprocessing(decoded=decoded), _images.CLASSES, "rows", threads=2)
    torch.manual_seed(0)
    model = resnet8(channels_last=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    gradients = VirtualShards(Job(model, cross_entropy, batches, World(), 1))
    total = 0.0
    for step in range(plan.total_steps):
        total += gradients(step).loss
        optimizer.step()
    return time.perf_counter() - start, total


class _Ordered:
    """Rows in the order that others have, so that both runs learn the same in the same order."""

    def __init__(self, rows: Rows, like: Any) -> None:
        self._rows, self.order = rows, like.order

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
        return self._rows[index]


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    ratio = median(one["ratio"] for one in trials)
    same = all(one["same_loss"] for one in trials)
    return {
        "epoch_ratio": round(ratio, 3), "memory_s": round(median(one["memory_s"] for one in trials), 2),
        "parquet_s": round(median(one["parquet_s"] for one in trials), 2), "same_loss": same,
        "reached": same and ratio <= _LIMIT,
    }  # fmt: skip
