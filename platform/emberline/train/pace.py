"""How often the state is copied into shared memory: after every step, or every k steps where a copy costs too much."""

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Literal

from emberline.runlog import RunLog
from emberline.train import snapshot
from emberline.train.folder import RunFolder
from emberline.train.state import Tensors

BUDGET = 0.01  # of the time of training
_MEASURED = 5  # steps whose copies are timed; the first one also makes the file, and is left out


def choose_every(write_s: float, step_s: float, budget: float = BUDGET) -> int:
    """The least k for which a copy of `write_s` every k steps of `step_s` stays within the budget."""
    return max(1, math.ceil(write_s / (budget * step_s))) if step_s > 0 else 1


class Snapshots:
    """Writes the snapshots of one node, by its first rank; the others' do nothing.

    With `auto`, the first steps of a generation are all kept and timed; k follows from them and is logged.
    """

    def __init__(
        self, run: RunFolder, generation: int, log: RunLog, *, every: int | Literal["auto"], writes: bool
    ) -> None:
        self._run, self._generation, self._log, self._writes = run, generation, log, writes
        self._every = 1 if every == "auto" else every
        self._measures = every == "auto"
        self._writer: snapshot.SnapshotWriter | None = None
        self._step_s: list[float] = []
        self._write_s: list[float] = []
        self._left_at: float | None = None

    def after_step(self, step: int, tensors: Callable[[], Tensors]) -> None:
        """Writes when it is time; `tensors` gives the state after `step` steps."""
        if not self._writes:
            return
        entered = time.monotonic()
        if self._measures or step % self._every == 0:
            self.write(step, tensors())
        left = time.monotonic()
        if self._measures:
            self._measure(step, entered, left)
        self._left_at = left

    def write(self, step: int, tensors: Tensors) -> None:
        """Writes now, whatever the pace."""
        if not self._writes:
            return
        if self._writer is None or not self._writer.fits(tensors):
            self._writer = self._open(tensors)
            if self._writer is None:
                return
            self._writer.write(step, tensors)
            # only now: until here the last generation's snapshot is the newest there is
            snapshot.remove_snapshots(self._run.run_id, self._run.path, but=self._writer.path)
        else:
            self._writer.write(step, tensors)

    def _measure(self, step: int, entered: float, left: float) -> None:
        if self._left_at is not None:
            self._step_s.append(entered - self._left_at)
            self._write_s.append(left - entered)
        if len(self._step_s) < _MEASURED:
            return
        self._measures = False
        write_s, step_s = median(self._write_s), median(self._step_s)
        self._every = choose_every(write_s, step_s)
        self._log.event(
            "snapshots", step=step, every=self._every, write_ms=round(write_s * 1e3, 3), step_ms=round(step_s * 1e3, 3)
        )

    def _open(self, tensors: Tensors) -> snapshot.SnapshotWriter | None:
        needed = snapshot.needed_bytes(tensors)
        path = snapshot.snapshot_path(self._run.run_id, self._generation, needed, self._run.path)
        if path.parent == self._run.path:
            self._log.say(f"shared memory has no room for {needed >> 10} KiB; snapshots are kept in {path.parent}")
        try:
            return snapshot.SnapshotWriter(path, tensors, self._run.path)
        except OSError as error:
            # training can go on: a killed worker then costs the steps since the last checkpoint
            self._writes = False
            self._log.say(f"no snapshots: {path}: {error}; a killed worker costs the steps since the last checkpoint")
            return None
