"""Rows from Parquet files, a few row groups in memory at a time.

The order of an epoch opens few row groups at once: groups are shuffled, then rows within windows of groups. It depends
on (seed, epoch) and the files' own layout alone, so any number of workers agree on it, and a worker that starts in the
middle of an epoch opens the groups of its place and none before.
"""

from collections import OrderedDict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from threading import Lock
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emberline.data.identity import Identity, of_parquet
from emberline.data.order import windowed_order
from emberline.data.rows import Instance, Splits
from emberline.data.subset import Subset, divide
from emberline.errors import EmberlineError, InvalidSetting, MissingFile

Columns = dict[str, Sequence[Any] | NDArray[Any]]


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
    """Rows of some Parquet files with equal columns. Only the columns that are named are read.

    Args:
        paths: the files, in an order that is part of what makes an epoch's order.
        inputs: column of each input, by the input's name: numbers, lists of numbers (of tokens too), text, or bytes of
            images.
        label: the column of class indices.
        window: row groups whose rows are shuffled together, and so kept in memory.
        pad_to: length of an input's lists, by the input's name: shorter ones are filled with zeros, longer ones cut.
        group: the column of whole numbers whose rows of one number are one request's candidates, for rankings.

    Raises:
        EmberlineError: a file is no Parquet, or lacks a column, has it of another type than the files before, or has
            nulls in it by its footer's statistics. Without them nulls are found when their row group is read.
    """

    def __init__(
        self, paths: Sequence[Path], inputs: Mapping[str, str], label: str, window: int = 4, *,
        pad_to: Mapping[str, int] | None = None, group: str | None = None,
    ) -> None:  # fmt: skip
        self._inputs, self._label, self._window, self._group = dict(inputs), label, window, group
        self._pad_to = dict(pad_to or {})
        self._row_groups = _row_groups(paths, self._inputs, [label, group] if group else [label], self._pad_to)
        self._ends = np.cumsum([one.num_rows for one in self._row_groups], dtype=np.int64)
        self._open: OrderedDict[int, tuple[Columns, NDArray[np.int64]]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> tuple[Instance, int]:
        number, row = self._find(index)
        with self._lock:
            columns, labels = self._read(number)
        return {name: values[row] for name, values in columns.items()}, int(labels[row])

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return windowed_order(seed, epoch, tuple(one.num_rows for one in self._row_groups), self._window)

    def digest(self) -> Identity:
        """What the rows are known by: their files, whichever columns are read."""
        rows: dict[Path, int] = {}
        for one in self._row_groups:
            rows[one.path] = rows.get(one.path, 0) + one.num_rows
        return of_parquet(list(rows.items()))

    def place(self, index: int) -> str:
        """File, row group and row within it."""
        number, row = self._find(index)
        return f"{self._row_groups[number].place}, row {row} of it"

    def column_of(self, name: str) -> str | None:
        """The column of an input."""
        return self._inputs.get(name)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """All labels; reads that column alone."""
        return self._whole(self._label)

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """The number of each row's group; reads that column alone. None without one."""
        return None if self._group is None else self._whole(self._group)

    def _whole(self, column: str) -> NDArray[np.int64]:
        pieces = [_labels(one, _read_columns(one, [column])[0]) for one in self._row_groups]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def _find(self, index: int) -> tuple[int, int]:
        """Number of the row group, and row within it."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._ends[number]) + self._row_groups[number].num_rows

    def _read(self, number: int) -> tuple[Columns, NDArray[np.int64]]:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        group, names = self._row_groups[number], list(self._inputs)
        *columns, labels = _read_columns(group, [*(self._inputs[name] for name in names), self._label])
        values: Columns = {
            name: _padded(column, self._pad_to[name]) if name in self._pad_to else _values(column)
            for name, column in zip(names, columns, strict=True)
        }
        self._open[number] = values, _labels(group, labels)
        while len(self._open) > self._window:
            self._open.popitem(last=False)
        return self._open[number]


def parquet(
    *,
    train: str,
    inputs: Mapping[str, str],
    label: str,
    validation: str | float = 0.1,
    test: str | None = None,
    window: int = 4,
    pad_to: Mapping[str, int] | None = None,
    group: str | None = None,
) -> Splits:
    """A recipe's data source: `emberline.data.parquet:parquet`.

    Args:
        train: path of the files, wildcards allowed (`data/train-*.parquet`), from the working directory.
        validation: like `train`; or the fraction of the training rows that is held out for it, always the same rows.
        test: like `train`; without it the validation rows stand in, and reports say nothing new.

        inputs, label, window, pad_to, group: as `ParquetRows` takes them.

    Raises:
        MissingFile: no file matches.
        InvalidSetting: the fraction is none, or `pad_to` names no input.
    """
    if unknown := set(pad_to or {}) - set(inputs):
        raise InvalidSetting("data.arguments", "pad_to", min(unknown), f"one of {', '.join(inputs)}")

    def rows(pattern: str) -> ParquetRows:
        return ParquetRows(_matching(pattern), inputs, label, window, pad_to=pad_to, group=group)

    if isinstance(validation, str):
        training, held_out = rows(train), rows(validation)
        return Splits(training, held_out, rows(test) if test else held_out)
    if not 0 < validation < 1:
        required = "a path, or a fraction between 0 and 1,"
        raise InvalidSetting("data.arguments", "validation", validation, required, hint="0.1 holds a tenth out")
    all_rows = rows(train)
    kept, held = divide(len(all_rows), validation, all_rows.groups)
    # two readers: what one is at must not push the other's row groups out of memory
    held_out_rows = Subset(rows(train), held)
    return Splits(Subset(all_rows, kept), held_out_rows, rows(test) if test else held_out_rows)


def _matching(pattern: str) -> list[Path]:
    paths = sorted(Path(name) for name in glob(pattern))  # noqa: PTH207 - the pattern may be absolute
    if not paths:
        raise MissingFile(pattern, "a Parquet file", hint="paths are taken from the working directory")
    return paths


def _row_groups(
    paths: Sequence[Path], inputs: Mapping[str, str], numbers: Sequence[str], pad_to: Container[str]
) -> list[Group]:
    """The row groups of all files, once the columns that are asked for are seen to be there, alike and without holes.

    Args:
        numbers: columns that are no inputs.
        pad_to: inputs whose lists may be empty.
    """
    groups: list[Group] = []
    first: dict[str, tuple[pa.DataType, Path]] = {}
    holes: list[tuple[Group, str]] = []
    filled = [column for name, column in inputs.items() if name not in pad_to]
    for path in paths:
        metadata = _footer(path)
        schema = metadata.schema.to_arrow_schema()
        place = f"{path}, row group {f'0 to {metadata.num_row_groups - 1}' if metadata.num_row_groups > 1 else 0}"
        for column in (*inputs.values(), *numbers):
            if column not in schema.names:
                hint = f"it has {', '.join(schema.names)}"
                raise EmberlineError(f"column {column!r} is not there", place=place, hint=hint)
            kind = schema.field(column).type
            known, where = first.setdefault(column, (kind, path))
            if kind != known:
                fact = f"column {column!r} is of type {kind}; {known} is required, as in {where}"
                raise EmberlineError(fact, place=place, hint="write all files with one schema")
            _require_type(column, kind, place, is_label=column in numbers)
        leaves = [(column, leaf) for column in (*filled, *numbers) for leaf in _leaves(metadata, column)]
        for index in range(metadata.num_row_groups):
            told = metadata.row_group(index)
            groups.append(Group(path, index, told.num_rows))
            holes += [(groups[-1], column) for column, leaf in leaves if _may_have_nulls(told.column(leaf))]
    for group, column in holes:
        _read_columns(group, [column])  # raises with the true count: statistics count empty lists too
    return groups


def _footer(path: Path) -> pq.FileMetaData:
    try:
        metadata = pq.read_metadata(path)
        metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        hint = "the file is not whole, damaged, or no Parquet; write or copy it again"
        raise EmberlineError(f"cannot be read as Parquet: {error}", place=path, hint=hint) from error
    return metadata


def _leaves(metadata: pq.FileMetaData, column: str) -> list[int]:
    """Numbers of the column chunks that a column's values, or those of its lists, are in."""
    paths = [metadata.schema.column(number).path for number in range(len(metadata.schema))]
    return [number for number, path in enumerate(paths) if path == column or path.startswith(f"{column}.")]


def _may_have_nulls(chunk: pq.ColumnChunkMetaData) -> bool:
    """Whether statistics count nulls in a column chunk; False where it has none."""
    told = chunk.statistics
    return bool(told is not None and told.has_null_count and told.null_count)


def _require_type(column: str, kind: pa.DataType, place: str, *, is_label: bool) -> None:
    """Raises for a type that no input or label can be made of."""
    if is_label and not pa.types.is_integer(kind):
        hint = "number the classes from 0, in the order of the recipe's labels"
        raise EmberlineError(
            f"labels {column!r} are of type {kind}; whole numbers are required", place=place, hint=hint
        )
    inner = kind
    while _is_list(inner):
        inner = inner.value_type
    flat = inner is kind and any(
        test(kind)
        for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    )
    if not flat and not pa.types.is_integer(inner) and not pa.types.is_floating(inner):
        hint = "numbers, lists of numbers, text, and bytes of JPEG or PNG can be inputs"
        raise EmberlineError(f"column {column!r} is of type {kind}, which cannot be an input", place=place, hint=hint)


def _read_columns(group: Group, columns: Sequence[str]) -> list[pa.ChunkedArray]:
    """Some columns of a row group; the others stay on the disk."""
    try:
        with pq.ParquetFile(group.path, page_checksum_verification=True) as file:
            table = file.read_row_group(group.index, columns=list(columns), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        named = ", ".join(map(repr, columns))
        hint = "the file is damaged or was changed while it was read; bring it back, the run goes on where it was"
        raise EmberlineError(f"column {named} cannot be read: {error}", place=group.place, hint=hint) from error
    for column in columns:
        if empty := table.column(column).null_count:
            hint = "fill them, or leave those rows out of the file"
            raise EmberlineError(f"column {column!r} has {empty} empty values", place=group.place, hint=hint)
        if empty := _nulls_within(table.column(column)):
            hint = (
                "put a number in each place of the lists, or leave those rows out of the file; `pad_to` fills ends only"
            )
            raise EmberlineError(
                f"column {column!r} has {empty} empty values in its lists", place=group.place, hint=hint
            )
    return [table.column(column) for column in columns]


def _nulls_within(column: pa.ChunkedArray) -> int:
    """Nulls in a column's lists, however deep."""
    count = 0
    for chunk in column.chunks:
        values = chunk
        while _is_list(values.type):
            values = values.flatten()
            count += values.null_count
    return count


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


class _Lazy(Sequence[Any]):
    """Lists, text or bytes, made Python values one by one: most rows of a group are other workers'."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._array = column.combine_chunks()

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        value = self._array[index]
        return value.to_pylist() if isinstance(index, slice) else value.as_py()


def _values(column: pa.ChunkedArray) -> Sequence[Any] | NDArray[Any]:
    """Numbers as one array; lists, text and bytes as what preprocessing takes."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    if pa.types.is_fixed_size_list(column.type):
        flat = np.asarray(column.combine_chunks().flatten().to_numpy(zero_copy_only=False))
        return flat.reshape(len(column), column.type.list_size)
    return _Lazy(column)


def _padded(column: pa.ChunkedArray, length: int) -> NDArray[Any]:
    """Lists of any lengths as one array, filled up with zeros: without a Python list for each."""
    lists = column.combine_chunks()
    sizes = np.asarray(pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    flat = np.asarray(lists.flatten().to_numpy(zero_copy_only=False))
    rows = np.zeros((len(lists), length), flat.dtype)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    places = np.arange(length)
    filled = places < sizes[:, None]
    rows[filled] = flat[(starts[:, None] + places)[filled]]
    return rows


def _labels(group: Group, column: pa.ChunkedArray) -> NDArray[np.int64]:
    if not pa.types.is_integer(column.type):
        raise EmberlineError(f"labels are of type {column.type}; whole numbers are required", place=group.place)
    return np.asarray(column.to_numpy(), np.int64)
