"""From append-only logs to Parquet, each row exactly once, whatever is killed in between.

A log is a row of *generations*: files `<stream>-<nanoseconds>.log`, each written by one process and closed once. Every
generation becomes one Parquet file a partition, `part=NN/<stream>-<nanoseconds>.parquet`, replaced as a whole while the
generation grows. So what is shipped is a function of the generation alone: doing it again after a crash gives the same
files, and no offset needs to be remembered. A closed generation is deleted after its files are on the disk.

Logs of requests hold raw unit ids for as long as their generation lives (a minute by default); they are readable by
their owner only. Disk full: nothing is deleted that was not shipped, and shipping goes on when there is room again.
"""

import io
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from emberline import storage
from emberline.errors import EmberlineError
from emberline.exposure import Row, partition_name

_READ_BYTES = 8 << 20


@dataclass(frozen=True)
class Spool:
    """The generations of one stream in one folder."""

    folder: Path
    stream: str

    def begin(self) -> Path:
        """Creates the file of a new generation, readable by its owner only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.stream}-{time.time_ns():020d}.log"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return path

    def generations(self) -> list[Path]:
        """All that are not yet shipped and deleted, oldest first."""
        return sorted(self.folder.glob(f"{self.stream}-*.log"))


@dataclass
class _Progress:
    """How far a generation has been read, and its rows by partition."""

    offset: int = 0
    tables: dict[str, list[pa.Table]] = field(default_factory=lambda: defaultdict(list))
    changed: set[str] = field(default_factory=set)
    seen: set[tuple[str, ...]] = field(default_factory=set)


class Shipper:
    """Keeps the Parquet files of a stream up to date with its logs. Not for use from several threads at once.

    Args:
        parse: one line to one row with a hashed `unit`.
        unique: columns whose values together count once a generation (idempotency keys), if any.
        complain: told about lines that cannot be read; they are left out.
    """

    def __init__(
        self,
        spool: Spool,
        target: Path,
        schema: pa.Schema,
        parse: Callable[[bytes], Row],
        *,
        unique: tuple[str, ...] = (),
        complain: Callable[[str], None],
    ) -> None:
        self._spool, self._target, self._schema, self._parse = spool, target, schema, parse
        self._unique, self._complain = unique, complain
        self._progress: dict[Path, _Progress] = {}

    def ship(self, is_open: Callable[[Path], bool]) -> int:
        """Ships what has been written since the last call; returns the number of new rows.

        Args:
            is_open: whether somebody may still write to a generation.
        """
        num_rows = 0
        for path in self._spool.generations():
            closed = not is_open(path)  # asked before reading: what was closed by now has all its lines
            progress = self._progress.setdefault(path, _Progress())
            num_rows += self._read(path, progress, closed=closed)
            for partition in sorted(progress.tables if closed else progress.changed):
                self._write(path.stem, partition, progress.tables[partition], durable=closed)
            progress.changed.clear()
            if closed:
                path.unlink()
                del self._progress[path]
        return num_rows

    def _read(self, path: Path, progress: _Progress, *, closed: bool) -> int:
        num_rows = 0
        with path.open("rb") as file:
            file.seek(progress.offset)
            while chunk := file.read(_READ_BYTES):
                whole = chunk.rfind(b"\n") + 1
                if not whole:
                    break
                num_rows += self._take(path, chunk[:whole], progress)
                progress.offset += whole
                file.seek(progress.offset)
            left = path.stat().st_size - progress.offset
        if closed and left:
            # its writer was killed in the middle of this line; no answer was promised for it
            self._complain(f"{path.name}: the last {left} bytes are an unfinished line and left out")
        return num_rows

    def _take(self, path: Path, lines: bytes, progress: _Progress) -> int:
        rows: dict[str, list[Row]] = defaultdict(list)
        for line in lines.splitlines():
            try:
                row = self._parse(line)
            except EmberlineError as error:
                self._complain(f"{path.name} near byte {progress.offset}: {error}")
                continue
            if self._unique:
                name = tuple(row[column] for column in self._unique)
                if name in progress.seen:
                    continue
                progress.seen.add(name)
            rows[partition_name(row["unit"])].append(row)
        for partition, found in rows.items():
            progress.tables[partition].append(pa.Table.from_pylist(found, schema=self._schema))
            progress.changed.add(partition)
        return sum(map(len, rows.values()))

    def _write(self, stem: str, partition: str, tables: list[pa.Table], *, durable: bool) -> None:
        content = io.BytesIO()
        pq.write_table(pa.concat_tables(tables), content, compression="zstd")
        target = self._target / partition / f"{stem}.parquet"
        if durable:
            storage.write_bytes(target, content.getvalue())
            return
        # the log is still there to make this file again, so it need not reach the disk now
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_bytes(content.getvalue())
        partial.rename(target)
