"""Our loader over one epoch, from Parquet or from memory: `_loaders.py emberline|memory FOLDER` prints its rate."""

import json
import sys
import time
from pathlib import Path

import _images

from emberline.data import order_of
from emberline.train.batches import Batches, Plan

BATCH = 128


def main(name: str, folder: Path) -> None:
    paths = sorted(folder.glob("train-*.parquet"))
    rows = _images.in_memory(paths) if name == "memory" else _images.from_parquet(paths)
    plan = Plan(1, len(rows), 1, BATCH, 1)
    start = time.perf_counter()
    batches = Batches(rows, plan, _images.preprocessing(decoded=name == "memory"), _images.CLASSES, name, threads=2)
    batches.follow(lambda step: [(0, plan.num_rows_of(step))])
    read = sum(len(batches.part(step, (0, plan.num_rows_of(step)))[1]) for step in range(plan.total_steps))
    seconds = time.perf_counter() - start
    distinct = len(set(order_of(rows, 1, 0).tolist()))
    print(json.dumps({"samples_per_s": read / seconds, "rows": read, "distinct": distinct}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
