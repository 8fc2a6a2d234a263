"""What is kept of each step: the snapshot first, then the log's line, then, when it is time, a checkpoint."""

import time
from collections.abc import Callable

from emberline.runlog import RunLog
from emberline.train import snapshot
from emberline.train.checkpoint import Checkpoints
from emberline.train.folder import RunFolder
from emberline.train.state import Learner, Tensors
from emberline.train.summary import Event
from emberline.train.world import World


class Keeping:
    """Keeps the state safe and the log true.

    Every rank has one: the first rank of a node writes its snapshots, rank 0 writes checkpoints and the log.
    """

    def __init__(
        self, run: RunFolder, checkpoints: Checkpoints, learner: Learner, world: World, *,
        log: RunLog, generation: int, seed: int, every_s: float, restart: Callable[[float], Event | None],
    ) -> None:  # fmt: skip
        self._run, self._checkpoints, self._learner, self._world = run, checkpoints, learner, world
        self._log, self._generation, self._seed, self._every_s = log, generation, seed, every_s
        self._writer: snapshot.SnapshotWriter | None = None
        self._without_snapshots = world.local_rank != 0
        self._saved_at = self._stepped_at = time.monotonic()
        self._saved_step = -1
        self._restart: Callable[[float], Event | None] | None = restart

    def after_step(self, step: int, *, epoch: int, loss: float, rows: int) -> None:
        """Called with the number of steps done, once the optimizer has moved."""
        self._snapshot(step)
        if self._world.rank != 0:
            return
        now = time.monotonic()
        rate, self._stepped_at = rows / max(1e-9, now - self._stepped_at), now
        self._log.event("step", step=step, epoch=epoch, loss=loss, samples_per_s=round(rate, 1))
        self.tell_restart()
        if now - self._saved_at >= self._every_s:
            self.checkpoint(step)

    def tell_restart(self) -> None:
        """Logs what the restart before this world cost, once, now that work goes on again."""
        if self._restart is not None and (facts := self._restart(time.time())) is not None:
            self._log.event("restart", **facts)
        self._restart = None

    def checkpoint(self, step: int, *, why: str = "time") -> None:
        """Saves the state, unless this step's is saved already; rank 0 does, others return at once."""
        if self._world.rank != 0 or step == self._saved_step:
            return
        started = time.monotonic()
        tensors = self._learner.tensors()
        path = self._checkpoints.save(step, tensors, seed=self._seed, generation=self._generation)
        self._saved_step, self._saved_at = step, time.monotonic()
        seconds = round(self._saved_at - started, 4)
        self._log.event("checkpoint", step=step, path=str(path), seconds=seconds, why=why, generation=self._generation)

    def forget_snapshots(self) -> None:
        """Frees the shared memory: the run has ended and its artifact is on disk."""
        if self._world.local_rank == 0:
            snapshot.remove_snapshots(self._run.run_id, self._run.path)

    def _snapshot(self, step: int) -> None:
        if self._without_snapshots:
            return
        tensors = self._learner.tensors()
        if self._writer is None:
            self._writer = self._open(tensors)
            if self._writer is None:
                return
            self._writer.write(step, tensors)
            snapshot.remove_snapshots(self._run.run_id, self._run.path, but=self._writer.path)
            return
        self._writer.write(step, tensors)

    def _open(self, tensors: Tensors) -> snapshot.SnapshotWriter | None:
        needed = snapshot.needed_bytes(tensors)
        path = snapshot.snapshot_path(self._run.run_id, self._generation, needed, self._run.path)
        if path.parent == self._run.path:
            self._log.say(f"shared memory has no room for {needed >> 10} KiB; snapshots are kept in {path.parent}")
        try:
            return snapshot.SnapshotWriter(path, tensors, self._run.path)
        except OSError as error:
            # training can go on: a killed worker then costs the steps since the last checkpoint
            self._without_snapshots = True
            self._log.say(f"no snapshots: {path}: {error}; a killed worker costs the steps since the last checkpoint")
            return None
