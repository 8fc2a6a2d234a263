"""Rows: what a data source gives, row by row."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emberline.data.identity import Identity, of_arrays
from emberline.errors import InvalidSetting

Instance = dict[str, Any]


def in_json(value: Any) -> Any:
    """One value of an instance: an image as base64, which is how JSON has it, anything else as it is."""
    return base64.b64encode(value).decode() if isinstance(value, bytes | bytearray | memoryview) else value


class Rows(Protocol):
    """Map-style rows. Reading the same index gives the same row, in any process.

    Rows may also have `labels`, a sequence of all labels: then their range is checked before training starts;
    `order(seed, epoch)`, a permutation of their own that suits how they are stored; and `groups`, a sequence of numbers
    that tells which rows are one request's candidates: then cascades of rankings are judged request by request. And
    `digest()`, as `emberline.data.identity` has it: then the model card says which rows were learnt from. And
    `place(index)` and `column_of(input)`: then errors say where a row and an input are kept.

    A row's label is the number of its class, or what `emberline.data.targets` says of the recipe's task.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Instance, Any]: ...


@dataclass(frozen=True)
class Splits:
    """Three disjoint sets of rows.

    Attributes:
        train: what the weights are fitted to.
        validation: what choices are made by: gates, calibration of quantization, progress.
        test: read by reports alone, once.
    """

    train: Rows
    validation: Rows
    test: Rows


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows held in memory: one array an input, rows along its first dimension."""

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Instance, int]:
        return {name: values[index] for name, values in self.inputs.items()}, int(self.labels[index])

    def digest(self) -> Identity:
        """What the rows are known by."""
        rest = {"labels": self.labels} if self.groups is None else {"labels": self.labels, "groups": self.groups}
        told = [*((f"input {name}", values) for name, values in self.inputs.items()), *rest.items()]
        return of_arrays(told, len(self))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "ArrayRows":
        groups = None if self.groups is None else self.groups[indices]
        return ArrayRows({name: values[indices] for name, values in self.inputs.items()}, self.labels[indices], groups)


def told(rows: Rows, index: int) -> str:
    """What errors call a row: by number, and by where it is kept where its rows tell."""
    tell = getattr(rows, "place", None)
    kept = str(tell(index)) if tell is not None else ""
    return f"row {index}" + (f" ({kept})" if kept else "")


def input_told(rows: Rows, name: str) -> str:
    """What errors call an input: by its column too, where rows tell one of another name."""
    tell = getattr(rows, "column_of", None)
    column = tell(name) if tell is not None else None
    return name if column in (None, name) else f"column {column} (input {name})"


def telling_rows(rows: Rows) -> list[int]:
    """Rows that show most faults of all: the first, and of arrays those with the least and most value (NaN is both)."""
    found = {0}
    if isinstance(rows, ArrayRows):
        for values in rows.inputs.values():
            if values.dtype.kind in "iuf" and values.size:
                size = values.size // len(values)
                found |= {int(values.argmin()) // size, int(values.argmax()) // size}
    return sorted(found)


def rows_from_arrays(name: str, x: ArrayLike, y: ArrayLike) -> ArrayRows:
    """Rows of one input from arrays.

    Args:
        name: the input's name, as in the recipe's `preprocessing.inputs`.
        x: values, one row along the first dimension.
        y: whole numbers, the class of each row.

    Raises:
        InvalidSetting: lengths differ, or labels are no whole numbers in one dimension.
    """
    values, labels = np.asarray(x), np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        got = f"{labels.dtype} of shape {list(labels.shape)}"
        raise InvalidSetting("rows_from_arrays", "y", got, "whole numbers in one dimension")
    if len(values) != len(labels):
        raise InvalidSetting("rows_from_arrays", "y", f"{len(labels)} labels", f"one for each of {len(values)} rows")
    return ArrayRows({name: values}, labels.astype(np.int64))
