"""Keeps the folders of rows small in number and in age: little files become larger ones, old ones go.

A router leaves some 16 files a minute. Sixteen files of one partition and UTC day become one, sixteen of those one
again, and what is left of a day becomes one file when the day is over: so a row is written four times at most, and a
day is at most some fifty files a partition.

A larger file names in its metadata those it was made from. They are deleted after it is on the disk; a crash in between
leaves both, readers count rows once anyway, and the next start deletes what was meant to go. Only generations whose log
is gone are touched, since a log may be shipped again; and none that was written in the last minutes, since it may be
another router's, whose logs are elsewhere. Of several routers with one folder, one at a time merges.
"""

import fcntl
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from emberline import storage

FANOUT = 16
LARGEST_BYTES = 256 << 20
SETTLED_S = 300.0
_DAY_NS = 86_400 * 10**9
_SOURCES = b"emberline.sources"
_NAME = re.compile(r"^(?P<stream>[a-z]+)-(?P<ns>\d{20})(?:-x(?P<count>\d+))?\.parquet$")


@dataclass(frozen=True)
class RowFile:
    """One file as its name tells it.

    Attributes:
        begun_ns: Unix time of its first generation.
        count: generations in it.
    """

    path: Path
    stream: str
    begun_ns: int
    count: int

    @property
    def day(self) -> int:
        return self.begun_ns // _DAY_NS

    @property
    def tier(self) -> int:
        """How often it was merged, as far as sixteen each time."""
        tier, size = 0, FANOUT
        while self.count >= size:
            tier, size = tier + 1, size * FANOUT
        return tier


def read_name(path: Path) -> RowFile | None:
    """None for a file that no router wrote, such as a warehouse's."""
    match = _NAME.match(path.name)
    return match and RowFile(path, match["stream"], int(match["ns"]), int(match["count"] or 1))


def compact(folder: Path, open_stems: Iterable[str], now_ns: int | None = None) -> int:
    """Merges what is due in all partitions of a stream's folder; returns how many files went.

    Args:
        open_stems: generations that may still be shipped: their names without the ending.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    held = set(open_stems)
    gone = 0
    with _alone(folder) as alone:
        for partition in sorted(folder.glob("part=*")) if alone else ():
            found = [read_name(path) for path in sorted(partition.glob("*.parquet"))]
            closed = [one for one in found if one is not None and _is_settled(one, held, now_ns)]
            for files in due(closed, now_ns // _DAY_NS):
                _merge(files)
                gone += len(files) - 1
    return gone


def _is_settled(one: RowFile, held: set[str], now_ns: int) -> bool:
    if one.path.stem in held:
        return False
    return one.count > 1 or one.path.stat().st_mtime_ns < now_ns - int(SETTLED_S * 1e9)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other router puts this folder in order just now."""
    if not folder.is_dir():
        yield False
        return
    with (folder / ".upkeep.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def due(files: Iterable[RowFile], today: int) -> list[list[RowFile]]:
    """Which files are to become one each. Pure, but for asking the size of files of days that are over."""
    days: dict[int, list[RowFile]] = defaultdict(list)
    for one in files:
        days[one.day].append(one)
    groups: list[list[RowFile]] = []
    for day, of_day in sorted(days.items()):
        if day < today:
            small = [one for one in of_day if one.path.stat().st_size < LARGEST_BYTES]
            groups += [small] if len(small) > 1 else []
            continue
        tiers: dict[int, list[RowFile]] = defaultdict(list)
        for one in of_day:
            tiers[one.tier].append(one)
        groups += [of_tier[:FANOUT] for of_tier in tiers.values() if len(of_tier) >= FANOUT]
    return groups


def finish(folder: Path) -> None:
    """Deletes what a merge that was killed meant to delete."""
    for path in folder.glob("part=*/*.parquet"):
        one = read_name(path)
        if one is not None and one.count > 1:
            for name in orjson.loads(pq.read_schema(path).metadata[_SOURCES]):
                (path.parent / name).unlink(missing_ok=True)


def forget(folder: Path, keep_s: float, now_ns: int | None = None) -> int:
    """Deletes rows that arrived longer ago than `keep_s`, a UTC day of them at a time; returns how many files went.

    Files that no router wrote go by the time they were written.
    """
    limit_ns = (time.time_ns() if now_ns is None else now_ns) - int(keep_s * 1e9)
    gone = 0
    for path in folder.glob("**/*.parquet"):
        one = read_name(path)
        newest_ns = path.stat().st_mtime_ns if one is None else (one.day + 1) * _DAY_NS
        if newest_ns < limit_ns:
            path.unlink()
            gone += 1
    return gone


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """With null where it lacks a column."""
    has = set(batch.schema.names)
    columns = [batch.column(one.name) if one.name in has else pa.nulls(batch.num_rows, one.type) for one in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _merge(files: list[RowFile]) -> None:
    first = min(files, key=lambda one: one.begun_ns)
    count = sum(one.count for one in files)
    target = first.path.with_name(f"{first.stream}-{first.begun_ns:020d}-x{count}.parquet")
    partial = target.with_name(f".{target.name}.partial")
    names = orjson.dumps([one.path.name for one in files])
    known = pa.unify_schemas([pq.read_schema(one.path).remove_metadata() for one in files])  # earlier ones lack columns
    schema = known.with_metadata({_SOURCES: names})
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for one in files:
            with pq.ParquetFile(one.path) as rows:
                for batch in rows.iter_batches(1 << 17):
                    writer.write_batch(_fitted(batch, schema))
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.rename(target)
    storage.sync_folder(target.parent)
    for one in files:
        one.path.unlink()
