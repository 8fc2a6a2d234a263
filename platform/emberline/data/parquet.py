"""Rows from Parquet files, one row group in memory at a time and a few remembered.

The order of an epoch opens few row groups at once: groups are shuffled, then rows within windows of groups. It depends
on (seed, epoch) and the files' own layout alone, so any number of workers agree on it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emberline.data.order import windowed_order
from emberline.data.rows import Instance, Splits
from emberline.errors import EmberlineError, MissingFile


@dataclass(frozen=True)
class Group:
    """One row group of one file."""

    path: Path
    index: int
    num_rows: int

    @property
    def place(self) -> str:
        return f"{self.path}, row group {self.index}"


class ParquetRows:
    """Rows of some Parquet files with equal columns.

    Args:
        paths: the files, in an order that is part of what makes an epoch's order.
        inputs: column of each input, by the input's name; numbers, lists of numbers, or bytes of images.
        label: the column of class indices.
        window: row groups whose rows are shuffled together, and so kept in memory.

    Raises:
        EmberlineError: a file is no Parquet, or lacks a column.
    """

    def __init__(self, paths: Sequence[Path], inputs: Mapping[str, str], label: str, window: int = 4) -> None:
        self._inputs, self._label, self._window = dict(inputs), label, window
        self.groups = [group for path in paths for group in _groups(path, [*self._inputs.values(), label])]
        self._ends = np.cumsum([group.num_rows for group in self.groups], dtype=np.int64)
        self._open: OrderedDict[int, tuple[dict[str, Any], NDArray[np.int64]]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> tuple[Instance, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        columns, labels = self._read(number)
        row = index - int(self._ends[number]) + self.groups[number].num_rows
        return {name: values[row] for name, values in columns.items()}, int(labels[row])

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return windowed_order(seed, epoch, tuple(group.num_rows for group in self.groups), self._window)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """All labels; reads that column alone."""
        pieces = [_labels(group, _column(group, self._label)) for group in self.groups]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def _read(self, number: int) -> tuple[dict[str, Any], NDArray[np.int64]]:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        group = self.groups[number]
        columns = {name: _values(_column(group, column)) for name, column in self._inputs.items()}
        self._open[number] = columns, _labels(group, _column(group, self._label))
        while len(self._open) > self._window:
            self._open.popitem(last=False)
        return self._open[number]


def parquet(
    *, train: str, validation: str, inputs: Mapping[str, str], label: str, test: str | None = None, window: int = 4
) -> Splits:
    """A recipe's data source: `emberline.data.parquet:parquet`.

    Args:
        train: path of the files, wildcards allowed (`data/train-*.parquet`), from the working directory.
        test: like `train`; without it the validation rows stand in, and reports say nothing new.

    Raises:
        MissingFile: no file matches.
    """
    parts = (train, validation, test or validation)
    return Splits(*(ParquetRows(_matching(pattern), inputs, label, window) for pattern in parts))


def _matching(pattern: str) -> list[Path]:
    paths = sorted(Path(name) for name in glob(pattern))  # noqa: PTH207 - the pattern may be absolute
    if not paths:
        raise MissingFile(pattern, "a Parquet file", hint="paths are taken from the working directory")
    return paths


def _groups(path: Path, columns: Sequence[str]) -> list[Group]:
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise EmberlineError(f"cannot be read as Parquet: {error}", place=path) from error
    known = metadata.schema.to_arrow_schema().names
    for column in columns:
        if column not in known:
            raise EmberlineError(f"column {column!r} is not there", place=path, hint=f"it has {', '.join(known)}")
    return [Group(path, index, metadata.row_group(index).num_rows) for index in range(metadata.num_row_groups)]


def _column(group: Group, column: str) -> pa.ChunkedArray:
    try:
        values = pq.ParquetFile(group.path).read_row_group(group.index, columns=[column]).column(column)
    except (OSError, pa.ArrowException) as error:
        raise EmberlineError(f"column {column!r} cannot be read: {error}", place=group.place) from error
    if values.null_count:
        raise EmberlineError(f"column {column!r} has {values.null_count} empty values", place=group.place)
    return values


def _values(column: pa.ChunkedArray) -> Sequence[Any] | NDArray[Any]:
    """Numbers as one array; lists and bytes as Python values, which preprocessing takes."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    if pa.types.is_fixed_size_list(column.type):
        flat = np.asarray(column.combine_chunks().flatten().to_numpy(zero_copy_only=False))
        return flat.reshape(len(column), column.type.list_size)
    values: list[Any] = column.to_pylist()
    return values


def _labels(group: Group, column: pa.ChunkedArray) -> NDArray[np.int64]:
    if not pa.types.is_integer(column.type):
        raise EmberlineError(f"labels are of type {column.type}; whole numbers are required", place=group.place)
    return np.asarray(column.to_numpy(), np.int64)
