"""A peer over one epoch: `_peer_loaders.py datasets|grain FOLDER` prints its rate. Runs in `.venv-loaders`."""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BATCH, WINDOW = 128, 1000  # rows shuffled together: as many as our four row groups


def prepare(row: dict[str, Any]) -> dict[str, Any]:
    with Image.open(io.BytesIO(row["image"])) as image:
        pixels = np.asarray(image.convert("RGB"))
    return {"image": np.moveaxis((pixels.astype(np.float32) - 125) / 63, -1, 0).copy(), "label": row["label"]}


def by_datasets(paths: list[str]) -> Any:
    import datasets

    rows = datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True)
    return rows.shuffle(seed=1, buffer_size=WINDOW).map(prepare).with_format("numpy").batch(BATCH)


def by_grain(paths: list[str]) -> Any:
    import grain
    from grain import experimental

    rows = grain.MapDataset.source(paths).shuffle(seed=1)
    files = [experimental.ParquetIterDataset(rows[index]) for index in range(len(paths))]
    mixed = experimental.WindowShuffleIterDataset(grain.IterDataset.mix(files), window_size=WINDOW, seed=1)
    return mixed.map(prepare).batch(BATCH, drop_remainder=False)


def main(name: str, folder: Path) -> None:
    paths = [str(path) for path in sorted(folder.glob("train-*.parquet"))]
    start = time.perf_counter()
    read = sum(len(np.asarray(batch["label"])) for batch in {"datasets": by_datasets, "grain": by_grain}[name](paths))
    print(json.dumps({"samples_per_s": read / (time.perf_counter() - start), "rows": read}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
