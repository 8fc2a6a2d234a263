"""Ranks that are slow, not stopped: seconds of their own work for each row, against the median of the others'.

All ranks wait for the slowest in each step, so the time of a step says nothing about who it was. Each counts what it
did itself, reading and computing; every few steps the counts are put together.
"""

import time
from collections.abc import Sequence
from statistics import median

import torch

from emberline.runlog import RunLog
from emberline.train.pulse import Work
from emberline.train.world import World

_EVERY = 16  # steps between two exchanges of counts
_WINDOW_S = 2.0  # of the busiest rank's own work: less says more about the machine's noise
_SLOW = 1.5  # times the others' median
_MATTERS = 0.1  # of the window's time that it takes longer than the others
_IN_A_ROW = 2  # windows


def ratios(works: Sequence[Work]) -> dict[int, float]:
    """How many times the median of the others each rank needs for a row; ranks without rows, or without others, are
    left out.
    """
    paces = {rank: work.seconds / work.rows for rank, work in enumerate(works) if work.rows}
    others = {rank: [pace for other, pace in paces.items() if other != rank] for rank in paces}
    return {rank: paces[rank] / median(others[rank]) for rank in paces if others[rank] and median(others[rank]) > 0}


def is_slow(work: Work, ratio: float, seconds: float) -> bool:
    """Whether a rank's pace holds the others up; three times next to nothing does not.

    Args:
        seconds: of the time in which it did this work.
    """
    return ratio >= _SLOW and work.seconds * (1 - 1 / ratio) >= _MATTERS * seconds


class Stragglers:
    """Tells in the log when a rank becomes slow, and when it no longer is; all ranks have one, rank 0's log is kept."""

    def __init__(self, world: World, log: RunLog) -> None:
        self._world, self._log = world, log
        self._own = Work(0.0, 0)
        self._works = [Work(0.0, 0)] * world.size
        self._slow_windows, self._begun = [0] * world.size, time.monotonic()

    def after_step(self, step: int) -> None:
        """Called by all ranks with the number of steps done."""
        self._own += self._world.pulse.take_work()
        if self._world.size == 1 or step % _EVERY:
            return
        counts = self._world.collect(torch.tensor([self._own.seconds, self._own.rows], dtype=torch.float64))
        self._own = Work(0.0, 0)
        for rank, (seconds, rows) in enumerate(counts.view(-1, 2).tolist()):
            self._works[rank] += Work(seconds, int(rows))
        if max(work.seconds for work in self._works) < _WINDOW_S:
            return
        seconds = time.monotonic() - self._begun
        for rank, ratio in ratios(self._works).items():
            self._note(step, rank, ratio, slow=is_slow(self._works[rank], ratio, seconds))
        self._works, self._begun = [Work(0.0, 0)] * self._world.size, time.monotonic()

    def _note(self, step: int, rank: int, ratio: float, *, slow: bool) -> None:
        before = self._slow_windows[rank]
        now = self._slow_windows[rank] = before + 1 if slow else 0
        if now == _IN_A_ROW:
            work = self._works[rank]
            ms = round(1e3 * work.seconds / work.rows, 3)
            self._log.event("straggler", step=step, rank=rank, ratio=round(ratio, 2), ms_per_row=ms)
        elif before >= _IN_A_ROW and now == 0:
            self._log.event("straggler_over", step=step, rank=rank, ratio=round(ratio, 2))
