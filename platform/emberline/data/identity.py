"""What data are known by: a digest of the rows that were read, cheap enough to be taken at every start.

It says whether two trainings read the same rows, and decides nothing. Rows tell their own: arrays hash their bytes,
Parquet files their bytes or, where they are large, their footers, which hold the size and the least and the greatest
value of every column chunk. Rows of a user's own tell one where they have `digest()`; none is made up for others.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from emberline import storage
from emberline.errors import EmberlineError

Identity = dict[str, Any]
"""JSON: `xxh3`, `rows`, `of` (what was hashed), and of files `files` and `size_bytes`."""

_WHOLE_BYTES = 256 << 20  # of all files together: hashed in a tenth of a second
_TAIL = 8  # bytes at the end of a Parquet file: the footer's length, and four letters


def identity_of(rows: object) -> Identity | None:
    """The digest that rows tell; None where they tell none.

    Raises:
        EmberlineError: what they tell is none.
    """
    tell = getattr(rows, "digest", None)
    told = tell() if callable(tell) else tell
    if told is None or (isinstance(told, dict) and isinstance(told.get("xxh3"), str)):
        return told
    hint = 'return {"xxh3": "…", "rows": …}, or None'
    raise EmberlineError(f"rows' digest() gives {type(told).__name__}", place="data.source", hint=hint)


def of_arrays(named: Iterable[tuple[str, NDArray[Any]]], num_rows: int) -> Identity:
    """Of arrays by name: their types, shapes and bytes."""
    digest = xxhash.xxh3_128()
    for name, array in sorted(named):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        plain = not array.dtype.hasobject
        digest.update(
            np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if plain else repr(array.tolist()).encode()
        )
    return {"xxh3": digest.hexdigest(), "rows": num_rows, "of": "arrays"}


def of_parquet(files: Sequence[tuple[Path, int]]) -> Identity:
    """Of Parquet files in their order, each with its number of rows: names, sizes, rows, and contents or footers.

    Raises:
        EmberlineError: a file is gone, or has no footer.
    """
    sizes = [path.stat().st_size for path, _ in files]
    whole = sum(sizes) <= _WHOLE_BYTES
    digest = xxhash.xxh3_128()
    for (path, num_rows), size in zip(files, sizes, strict=True):
        content = storage.content_hash(path) if whole else xxhash.xxh3_128_hexdigest(_footer(path, size))
        digest.update(f"{path.name} {size} {num_rows} {content}\n".encode())
    return {
        "xxh3": digest.hexdigest(),
        "rows": sum(num_rows for _, num_rows in files),
        "of": "files" if whole else "footers",
        "files": len(files),
        "size_bytes": sum(sizes),
    }


def of_some(whole: Identity, indices: NDArray[np.int64]) -> Identity:
    """Of the rows at some indices of others."""
    digest = xxhash.xxh3_128(whole["xxh3"].encode())
    digest.update(np.ascontiguousarray(indices).data)
    return {**whole, "xxh3": digest.hexdigest(), "rows": len(indices)}


def _footer(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        length = int.from_bytes(file.read(4), "little")
        if not 0 < length <= size - _TAIL:
            raise EmberlineError("has no Parquet footer", place=path, hint="was it changed since it was opened?")
        file.seek(size - _TAIL - length)
        return file.read(length)
