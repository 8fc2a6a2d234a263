"""What each worker of a node is at, in shared memory: written at every turn by the worker, read by its agent.

One slot a worker. Writing one costs some microseconds and takes no lock: its number is odd while it is being written,
so whoever reads sees whether it changed under his hands. The memory belongs to the agent's process and has no name in
any folder, so nothing of it is left behind, however processes end.
"""

import mmap
import os
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from statistics import median

# number; generation, pid, step, steps done, exchanges, around, phase; since, step_s, longest_s
_SLOT = struct.Struct("<Q7q3d")
_NUMBER, _FACTS = struct.Struct("<Q"), struct.Struct("<7q3d")
_SLOT_BYTES = 128
_REMEMBERED = 32  # steps that median and longest are of
_TRIES = 100


class Phase(IntEnum):
    """What a worker is at. In EXCHANGE it may be waiting for other ranks; in all others only itself holds it up."""

    START = 0
    DATA = 1
    COMPUTE = 2
    EXCHANGE = 3
    UPDATE = 4
    EVALUATION = 5
    SAVING = 6


@dataclass(frozen=True)
class Beat:
    """One worker, as it last told of itself.

    Attributes:
        generation: of its world; 0 before it has one.
        step: that it is at.
        steps_done: by this process; 0 until its first step, which may compile, is done.
        exchanges: collectives it has entered.
        around: the phase that `phase` is a part of; the same where it is none.
        since: when it last made progress, of the clock `time.monotonic`.
        step_s: the median of its last steps.
        longest_s: the longest of them.
    """

    generation: int
    pid: int
    step: int
    steps_done: int
    exchanges: int
    around: Phase
    phase: Phase
    since: float
    step_s: float
    longest_s: float


@dataclass(frozen=True)
class Work:
    """What a worker did by itself, waiting for nobody."""

    seconds: float
    rows: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.seconds + other.seconds, self.rows + other.rows)


class Board:
    """The slots of a node's workers, made by its agent.

    Attributes:
        path: by which a process of this user opens it, as long as the agent lives.
    """

    def __init__(self, num_workers: int) -> None:
        self._descriptor = os.memfd_create("emberline-pulse")
        os.ftruncate(self._descriptor, num_workers * _SLOT_BYTES)
        self._map = mmap.mmap(self._descriptor, num_workers * _SLOT_BYTES)
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def read(self, local_rank: int) -> Beat | None:
        """The worker's last beat; None where there was none yet."""
        first = local_rank * _SLOT_BYTES
        for _ in range(_TRIES):
            content = self._map[first : first + _SLOT.size]
            number, generation, pid, step, steps_done, exchanges, around, phase, *times = _SLOT.unpack(content)
            (after,) = _NUMBER.unpack_from(self._map, first)
            if number == after and number % 2 == 0:
                if not number:
                    return None
                return Beat(generation, pid, step, steps_done, exchanges, Phase(around), Phase(phase), *times)
        return None  # its writer died or was stopped while it wrote

    def close(self) -> None:
        self._map.close()
        os.close(self._descriptor)


class Pulse:
    """A worker's own slot; without a board it only keeps the account of its own work.

    Args:
        path: the board's.
    """

    def __init__(self, path: Path | None = None, local_rank: int = 0) -> None:
        self._map: mmap.mmap | None = None
        if path is not None:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
            os.close(descriptor)
        self._first, self._number = local_rank * _SLOT_BYTES, 0
        self._generation = self._step = self._steps_done = self._exchanges = 0
        self._around = self._phase = Phase.START
        self._since, self._stays = time.monotonic(), False
        self._steps: deque[float] = deque(maxlen=_REMEMBERED)
        self._median_s = self._longest_s = 0.0
        self._begun, self._own_s, self._rows = self._since, 0.0, 0
        self._write()

    def joined(self, generation: int) -> None:
        """This process belongs to a world now."""
        self._generation = generation
        self._enter(self._phase)

    def begin_step(self, step: int) -> None:
        self._step, self._begun = step, time.monotonic()
        self._enter(Phase.COMPUTE)

    def end_step(self) -> None:
        self._steps.append(time.monotonic() - self._begun)
        self._median_s, self._longest_s = median(self._steps), max(self._steps)
        self._steps_done += 1
        self._enter(Phase.UPDATE)  # until the next step or an evaluation begins

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Around work of one kind; afterwards this worker is at what it was at before."""
        before, around = self._phase, self._around
        self._exchanges += phase == Phase.EXCHANGE
        self._enter(phase, before)
        try:
            yield
        finally:
            self._enter(before, around)

    def computes(self, rows: int) -> None:
        """Counts rows that this rank computes itself."""
        self._rows += rows

    def stay(self, phase: Phase) -> None:
        """From now on this worker is at one thing, whatever its other threads still enter: it is about to end."""
        self._enter(phase)
        self._stays = True

    def take_work(self) -> Work:
        """What this rank did itself since the last call: reading and computing."""
        self._enter(self._phase)
        work = Work(self._own_s, self._rows)
        self._own_s, self._rows = 0.0, 0
        return work

    def _enter(self, phase: Phase, around: Phase | None = None) -> None:
        now = time.monotonic()
        if self._phase in {Phase.DATA, Phase.COMPUTE}:
            self._own_s += now - self._since
        if not self._stays:
            self._phase, self._around, self._since = phase, phase if around is None else around, now
            self._write()

    def _write(self) -> None:
        if self._map is None:
            return
        self._number += 2
        _NUMBER.pack_into(self._map, self._first, self._number - 1)
        _FACTS.pack_into(
            self._map, self._first + _NUMBER.size, self._generation, os.getpid(), self._step, self._steps_done,
            self._exchanges, self._around, self._phase, self._since, self._median_s, self._longest_s,
        )  # fmt: skip
        _NUMBER.pack_into(self._map, self._first, self._number)
