"""A page of shared memory for each worker: what it is at, and counts of what it has done.

TorchServe tells neither: `pendingRequests` leaves out the batch a worker is at, and its front end has no histograms.
The worker writes a few numbers for each batch, which costs microseconds; the supervisor reads them whenever it looks.
The numbers of one page are not changed together: a reader may see a batch counted and its seconds not yet.
"""

import logging
import mmap
import os
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
STATUSES = ("2xx", "4xx", "5xx")

_NAME_BYTES = 512
_NUMBERS = struct.Struct(f"<QQd{len(STATUSES)}Q{len(BATCH_BOUNDS) + 1}Q{len(SECONDS_BOUNDS) + 1}Q")
_SIZE = _NAME_BYTES + _NUMBERS.size
_BUSY_SINCE = struct.Struct("<Q")
_log = logging.getLogger("emberline.worker")


@dataclass(frozen=True)
class Counts:
    """What workers have done.

    Attributes:
        rows: requests in all batches.
        seconds: from a batch's arrival at the worker to its answers.
        statuses: requests by class of status, as `STATUSES`.
        batches: number of batches by size, one for each of `BATCH_BOUNDS`, and of larger ones.
        durations: number of batches by their seconds, one for each of `SECONDS_BOUNDS`, and of longer ones.
    """

    rows: int = 0
    seconds: float = 0.0
    statuses: tuple[int, ...] = (0,) * len(STATUSES)
    batches: tuple[int, ...] = (0,) * (len(BATCH_BOUNDS) + 1)
    durations: tuple[int, ...] = (0,) * (len(SECONDS_BOUNDS) + 1)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.rows + other.rows,
            self.seconds + other.seconds,
            _added(self.statuses, other.statuses),
            _added(self.batches, other.batches),
            _added(self.durations, other.durations),
        )


@dataclass(frozen=True)
class Reading:
    """A page at one moment.

    Attributes:
        key: model and version; empty before the worker's first batch.
        busy_s: for how long the worker has been at its batch; 0 when it is at none.
    """

    pid: int
    key: tuple[str, str]
    busy_s: float
    counts: Counts


class Page:
    """The worker's side; one thread writes."""

    def __init__(self, folder: Path) -> None:
        path = folder / str(os.getpid())
        try:
            with path.open("w+b") as file:
                os.posix_fallocate(file.fileno(), 0, _SIZE)  # a hole in it would be a SIGBUS on a full disk
                self._memory = mmap.mmap(file.fileno(), _SIZE)
        except OSError as error:
            path.unlink(missing_ok=True)
            self._memory = mmap.mmap(-1, _SIZE)
            _log.warning("%s: %s; this worker's batches are not counted, nor is it replaced when it hangs", path, error)
        self._counts = Counts()
        self._began_ns = 0

    def begin(self, model: str, version: str) -> None:
        """A batch has come in."""
        if not self._counts.rows:
            name = f"{model}\0{version}\0".encode()[:_NAME_BYTES]
            self._memory[: len(name)] = name
        self._began_ns = time.monotonic_ns()
        self._write_busy(self._began_ns)

    def end(self, statuses: Sequence[int]) -> None:
        """The batch was answered with these statuses."""
        seconds = (time.monotonic_ns() - self._began_ns) / 1e9
        self._counts += counted(seconds, statuses)
        c = self._counts
        _NUMBERS.pack_into(self._memory, _NAME_BYTES, 0, c.rows, c.seconds, *c.statuses, *c.batches, *c.durations)

    def _write_busy(self, since_ns: int) -> None:
        _BUSY_SINCE.pack_into(self._memory, _NAME_BYTES, since_ns)


def counted(seconds: float, statuses: Sequence[int]) -> Counts:
    """One batch as counts."""
    return Counts(
        rows=len(statuses),
        seconds=seconds,
        statuses=(
            sum(status < 400 for status in statuses),  # noqa: PLR2004 - HTTP's own classes
            sum(400 <= status < 500 for status in statuses),  # noqa: PLR2004
            sum(status >= 500 for status in statuses),  # noqa: PLR2004
        ),
        batches=_in_bucket(len(statuses), BATCH_BOUNDS),
        durations=_in_bucket(seconds, SECONDS_BOUNDS),
    )


def read_all(folder: Path) -> list[Reading]:
    """The pages of all workers, of dead ones too."""
    found = []
    for path in folder.iterdir():
        content = path.read_bytes()
        if len(content) == _SIZE:  # else its worker is only just making it
            found.append(_reading(int(path.name), content))
    return found


def drop(folder: Path, pid: int) -> None:
    """Forgets a dead worker's page."""
    with suppress(FileNotFoundError):
        (folder / str(pid)).unlink()


def _reading(pid: int, content: bytes) -> Reading:
    name = content[:_NAME_BYTES].split(b"\0")
    since_ns, rows, seconds, *rest = _NUMBERS.unpack_from(content, _NAME_BYTES)
    end = len(STATUSES) + len(BATCH_BOUNDS) + 1
    counts = Counts(rows, seconds, tuple(rest[: len(STATUSES)]), tuple(rest[len(STATUSES) : end]), tuple(rest[end:]))
    busy_s = (time.monotonic_ns() - since_ns) / 1e9 if since_ns else 0.0
    return Reading(pid, (name[0].decode(), name[1].decode()), busy_s, counts)


def _in_bucket(value: float, bounds: Sequence[float]) -> tuple[int, ...]:
    place = next((index for index, bound in enumerate(bounds) if value <= bound), len(bounds))
    return tuple(int(index == place) for index in range(len(bounds) + 1))


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
