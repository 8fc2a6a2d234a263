"""Small pictures in Parquet, and the same pictures in memory: what the keys about reading are measured with.

They are made up (soft blobs of colour with some noise, so that JPEG has its usual work), for nothing needs a download.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from emberline.data import ArrayRows
from emberline.data.parquet import ParquetRows
from emberline.recipe import Preprocessing

_SIDE = 32
_GROUP = 250
CLASSES = 10


def write(folder: Path, rows: int, shards: int = 4) -> list[Path]:
    """JPEGs and labels in files of several row groups."""
    random = np.random.default_rng(0)
    paths = []
    for shard, part in enumerate(np.array_split(np.arange(rows), shards)):
        labels = random.integers(0, CLASSES, len(part))
        images = [_jpeg(random, label) for label in labels]
        path = folder / f"train-{shard}.parquet"
        pq.write_table(pa.table({"image": images, "label": labels}), path, row_group_size=_GROUP)
        paths.append(path)
    return paths


def _jpeg(random: np.random.Generator, label: int) -> bytes:
    coarse = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    coarse[..., 0] = label * 25
    soft = np.asarray(Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(soft + random.integers(-20, 20, soft.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=75)
    return file.getvalue()


def from_parquet(paths: list[Path]) -> ParquetRows:
    return ParquetRows(paths, {"image": "image"}, "label")


def in_memory(paths: list[Path]) -> ArrayRows:
    """The same rows, read and decoded beforehand."""
    tables = [pq.read_table(path) for path in paths]
    pixels = [decode(content) for table in tables for content in table.column("image").to_pylist()]
    labels = np.concatenate([table.column("label").to_numpy() for table in tables])
    return ArrayRows({"image": np.stack(pixels)}, labels.astype(np.int64))


def decode(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def preprocessing(*, decoded: bool) -> Preprocessing:
    kind = {"kind": "tensor", "dtype": "uint8", "shape": [_SIDE, _SIDE, 3]} if decoded else {"kind": "image"}
    steps = [{"op": "normalise", "mean": [125.0], "std": [63.0]}, {"op": "channels_first"}]
    return Preprocessing.model_validate({"inputs": [{"name": "image", **kind}], "steps": steps})
