"""What is kept of each step: the snapshot first, then the log's line, then, when it is time, a checkpoint."""

import time
from collections.abc import Callable

from emberline.recipe import Train
from emberline.runlog import RunLog
from emberline.train import snapshot
from emberline.train.checkpoint import Checkpoints
from emberline.train.folder import RunFolder
from emberline.train.pace import Snapshots
from emberline.train.saving import Saving
from emberline.train.state import Learner
from emberline.train.summary import Event
from emberline.train.world import World


class Keeping:
    """Keeps the state safe and the log true.

    Every rank has one: the first rank of a node writes its snapshots, rank 0 writes checkpoints and the log.

    Attributes:
        done: steps whose state this process has.
    """

    def __init__(
        self, run: RunFolder, checkpoints: Checkpoints, learner: Learner, world: World, *,
        log: RunLog, generation: int, settings: Train, seed: int, done: int, restart: Callable[[float], Event | None],
    ) -> None:  # fmt: skip
        self._run, self._learner, self._world, self._log = run, learner, world, log
        self.done = done
        writes = world.local_rank == 0
        self._snapshots = Snapshots(run, generation, log, every=settings.snapshot_every, writes=writes)
        self._saving = Saving(checkpoints, log, generation=generation, seed=seed, every_s=settings.checkpoint_every_s)
        self._stepped_at = time.monotonic()
        self._restart: Callable[[float], Event | None] | None = restart

    def after_step(self, step: int, *, epoch: int, loss: float, rows: int) -> None:
        """Called with the number of steps done, once the optimizer has moved."""
        self.done = step
        self._snapshots.after_step(step, self._learner.tensors)
        if self._world.rank != 0:
            return
        now = time.monotonic()
        rate, self._stepped_at = rows / max(1e-9, now - self._stepped_at), now
        self._log.event("step", step=step, epoch=epoch, loss=loss, samples_per_s=round(rate, 1))
        self.tell_restart()
        self._saving.after_step(step, self._learner.tensors)

    def tell_restart(self) -> None:
        """Logs what the restart before this world cost, once, now that work goes on again."""
        if self._restart is not None and (facts := self._restart(time.time())) is not None:
            self._log.event("restart", **facts)
        self._restart = None

    def checkpoint(self, step: int, *, why: str) -> None:
        """Saves the state and waits for it, unless this step's is saved already; rank 0 does, others return at once."""
        if self._world.rank == 0:
            self._saving.save(step, self._learner.tensors(), why=why)

    def hand_over(self) -> None:
        """Before this process ends early: rank 0's state goes to disk, that of another node's first rank to memory."""
        self._snapshots.write(self.done, self._learner.tensors())
        self.checkpoint(self.done, why="preemption")

    def remember(self) -> None:
        """Copies the state into shared memory now, whatever the pace: what comes next may not be survived."""
        self._snapshots.write(self.done, self._learner.tensors())

    def forget_snapshots(self) -> None:
        """Frees the shared memory: the run has ended and its artifact is on disk."""
        if self._world.local_rank == 0:
            snapshot.remove_snapshots(self._run.run_id, self._run.path)
