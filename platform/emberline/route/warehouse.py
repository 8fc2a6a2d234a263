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
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from emberline import storage
from emberline.errors import EmberlineError, MissingFile
from emberline.exposure import OUTCOMES, Row, hash_unit, load_key, partition_name
from emberline.route.outcomes import AHEAD_S, Outcome

_REQUIRED = ("event_id", "unit", "metric", "value")
_OPTIONAL = ("request_id", "time")
_BATCH_ROWS = 1 << 16


class InvalidRows(EmberlineError):
    """A file of outcomes that cannot be taken; nothing of it was."""


def take_outcomes(path: Path, data: Path) -> int:
    """Takes a file's rows into `data/outcomes`, in bounded memory; returns how many there are.

    What was taken of the file before stays as it was first received.

    Raises:
        MissingFile: there is no such file.
        InvalidRows: no Parquet, a column is missing, or a row cannot be used.
    """
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
                raise InvalidRows(f"has no column {missing[0]!r}", place=path, hint=required)
            columns = [name for name in (*_REQUIRED, *_OPTIONAL) if name in names]
            first = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                yield [_row(path, first + index, row, key) for index, row in enumerate(batch.to_pylist())]
                first += len(batch)
    except pa.ArrowInvalid as error:
        raise InvalidRows(f"cannot be read as Parquet: {error}", place=path) from error


def _row(path: Path, number: int, raw: dict[str, Any], key: bytes) -> Row:
    now, moment, value = time.time(), raw.get("time"), raw["value"]
    told = {
        **raw,
        "value": float(value) if isinstance(value, bool | Decimal) else value,
        "time": _seconds(moment) if isinstance(moment, datetime) else moment,
    }
    for name in ("event_id", "unit", "request_id"):  # warehouses hold ids as numbers, too
        if isinstance(told.get(name), int):
            told[name] = str(told[name])
    try:
        outcome = Outcome.model_validate(told)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(map(str, wrong["loc"]))
        raise InvalidRows(f"row {number}: {place}: {wrong['msg']}", place=path) from error
    if outcome.time is not None and outcome.time > now + AHEAD_S:
        hint = "Unix seconds or a timestamp; milliseconds must be divided by 1000"
        raise InvalidRows(f"row {number}: time: {outcome.time:g} is more than a day ahead", place=path, hint=hint)
    return {
        "time_us": round((now if outcome.time is None else outcome.time) * 1e6),
        "event_id": outcome.event_id,
        "unit": hash_unit(key, outcome.unit),
        "request_id": outcome.request_id,
        "metric": outcome.metric,
        "value": outcome.value,
        "received_us": round(now * 1e6),
    }


def _seconds(moment: datetime) -> float:
    """Unix time; UTC where the column says no time zone: this machine's is not the warehouse's."""
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _by_partition(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[partition_name(row["unit"])].append(row)
    return found
