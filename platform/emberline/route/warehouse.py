"""Outcomes from a warehouse: Parquet files with raw unit ids become partitioned rows with hashed ones.

Columns: `event_id`, `unit`, `metric`, `value`; `request_id` and `time` (a timestamp, or Unix seconds) where there are
any. A timestamp without a time zone is UTC, wherever it is read. A file is taken whole or refused with its first wrong
row named. What is written is called after the file's content: taking a file again changes nothing, and an event that
another file or the HTTP endpoint told already counts once for readers.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from emberline import storage
from emberline.errors import EmberlineError, InvalidOption, MissingFile
from emberline.exposure import OUTCOMES, Row, hash_unit, load_key, partition_name
from emberline.route.outcomes import AHEAD_S, Outcome, what_is_wrong

_REQUIRED = ("event_id", "unit", "metric", "value")
_OPTIONAL = ("request_id", "time")
_BATCH_ROWS = 1 << 16
_NONE_TAKEN = "nothing of the file was taken; mend the column, or leave such rows out, and take it again"
_TIMES = "a timestamp, or Unix seconds; milliseconds must be divided by 1000"


class InvalidRows(InvalidOption):
    """A file of outcomes that cannot be taken; nothing of it was."""

    def __init__(self, path: Path, fact: str, *, hint: str = _NONE_TAKEN) -> None:
        EmberlineError.__init__(self, fact, place=path, hint=hint)
        self.key, self.got, self.required = "the file", fact, "rows that are outcomes"


def take_outcomes(path: Path, data: Path) -> int:
    """Takes a file's rows into `data/outcomes`, in bounded memory; returns how many there are.

    What was taken of the file before stays as it was first received.

    Raises:
        MissingFile: there is no such file.
        InvalidRows: no Parquet, a column is missing, or a row cannot be used.
    """
    if path.is_dir():
        raise InvalidRows(path, "is a folder; a Parquet file is required", hint=f"name its files: {path}/….parquet")
    if not path.is_file():
        raise MissingFile(path, "the Parquet file of outcomes")
    key = load_key(data)
    name = f"warehouse-{storage.content_hash(path)[:16]}.parquet"
    partials: dict[str, Path] = {}
    written: dict[str, pq.ParquetWriter] = {}
    num_rows = 0
    try:
        with ExitStack() as open_writers:
            for rows in _batches(path, key):
                num_rows += len(rows)
                for partition, some in _by_partition(rows).items():
                    if partition not in written:
                        folder = data / "outcomes" / partition
                        folder.mkdir(parents=True, exist_ok=True)
                        partials[partition] = folder / f".{name}.{os.getpid()}.partial"
                        writer = pq.ParquetWriter(partials[partition], OUTCOMES, compression="zstd")
                        written[partition] = open_writers.enter_context(writer)
                    written[partition].write_table(pa.Table.from_pylist(some, schema=OUTCOMES))
    except BaseException:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        raise
    for partial in partials.values():
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if (taken := partial.with_name(name)).exists():
            partial.unlink()
            continue
        partial.rename(taken)
        storage.sync_folder(partial.parent)
    return num_rows


def _batches(path: Path, key: bytes) -> Iterator[list[Row]]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in _REQUIRED if name not in names]
            if missing:
                required = f"columns {', '.join(_REQUIRED)} are required; {', '.join(_OPTIONAL)} may be there"
                raise InvalidRows(path, f"has no column {missing[0]!r}", hint=required)
            columns = [name for name in (*_REQUIRED, *_OPTIONAL) if name in names]
            first = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                rows = _with_seconds(path, batch).to_pylist()
                yield [_row(path, first + index, row, key) for index, row in enumerate(rows)]
                first += len(batch)
    except (pa.ArrowException, OSError) as error:  # a damaged page is an OSError
        raise InvalidRows(path, f"cannot be read as Parquet: {error}", hint="export it again") from error


def _with_seconds(path: Path, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Timestamps of any resolution as Unix seconds; UTC where the column says no time zone.

    This machine's zone is not the warehouse's, and pandas writes nanoseconds, which a Python datetime cannot hold.
    """
    index = rows.schema.get_field_index("time")
    if index < 0 or not pa.types.is_timestamp(kind := rows.schema.field(index).type):
        return rows
    try:
        moments = rows.column(index).cast(options=pc.CastOptions(pa.timestamp("us", kind.tz), allow_time_truncate=True))
    except pa.ArrowInvalid as error:
        raise InvalidRows(path, f"time: {error}", hint=_TIMES) from error
    return rows.set_column(index, "time", pc.divide(moments.cast(pa.int64()).cast(pa.float64()), 1e6))


def _row(path: Path, number: int, raw: dict[str, Any], key: bytes) -> Row:
    now, value = time.time(), raw["value"]
    told = {**raw, "value": float(value) if isinstance(value, bool | Decimal) else value}
    for name in ("event_id", "unit", "request_id"):  # warehouses hold ids as numbers, too
        if isinstance(told.get(name), int):
            told[name] = str(told[name])
    try:
        outcome = Outcome.model_validate(told)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        column, fact = what_is_wrong(wrong["type"], wrong["loc"])
        hint = _TIMES if column == "time" else _NONE_TAKEN
        raise InvalidRows(path, f"row {number}: {fact}", hint=hint) from error
    if outcome.time is not None and outcome.time > now + AHEAD_S:
        raise InvalidRows(path, f"row {number}: time {outcome.time:g} is more than a day ahead", hint=_TIMES)
    return {
        "time_us": round((now if outcome.time is None else outcome.time) * 1e6),
        "event_id": outcome.event_id,
        "unit": hash_unit(key, outcome.unit),
        "request_id": outcome.request_id,
        "metric": outcome.metric,
        "value": outcome.value,
        "received_us": round(now * 1e6),
    }


def _by_partition(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[partition_name(row["unit"])].append(row)
    return found
