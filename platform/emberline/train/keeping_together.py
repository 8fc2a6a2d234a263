"""What is kept where the state is divided among workers: they write it together, at the end of a step, when all agree.

There are no snapshots: a lost worker's part would be lost with it.
"""

import time
from collections.abc import Callable

import torch

from emberline.recipe import Train
from emberline.runlog import RunLog
from emberline.train.checkpoint import Checkpoints
from emberline.train.preemption import Preempted, Preemption
from emberline.train.pulse import Phase
from emberline.train.saving import BUDGET
from emberline.train.state import Learner
from emberline.train.summary import Event
from emberline.train.world import World


class KeepingTogether:
    """As `Keeping`, for `strategy: fsdp2`; every method is called by all ranks together.

    Attributes:
        done: steps whose state this process has.
    """

    def __init__(
        self, preemption: Preemption, checkpoints: Checkpoints, learner: Learner, world: World, *,
        log: RunLog, generation: int, settings: Train, seed: int, done: int, restart: Callable[[float], Event | None],
    ) -> None:  # fmt: skip
        self._checkpoints, self._learner, self._world, self._preemption = checkpoints, learner, world, preemption
        self._log, self._generation, self._seed = log, generation, seed
        self._asked_s = self._every_s = settings.checkpoint_every_s
        self._restart: Callable[[float], Event | None] | None = restart
        self.done, self._saved_step = done, -1
        self._stepped_at = self._saved_at = time.monotonic()

    def after_step(self, step: int, *, epoch: int, loss: float, rows: int) -> None:
        """Called with the number of steps done, once the optimizer has moved.

        Raises:
            Preempted: one of the workers had a notice, and the state is saved.
        """
        self.done = step
        now = time.monotonic()
        rate, self._stepped_at = rows / max(1e-9, now - self._stepped_at), now
        self._log.event("step", step=step, epoch=epoch, loss=loss, samples_per_s=round(rate, 1))
        self.tell_restart()
        due = self._world.rank == 0 and now - self._saved_at >= self._every_s
        noticed, wanted = self._agree(self._preemption.asked_at is not None, due)
        if noticed:
            self.checkpoint(step, why="preemption")
            asked_at = self._preemption.asked_at or now
            self._log.event("preempted", step=step, seconds_to_save=round(time.monotonic() - asked_at, 3))
            raise Preempted
        if wanted:
            self.checkpoint(step, why="time")

    def tell_restart(self) -> None:
        """Logs what the restart before this world cost, once, now that work goes on again."""
        if self._restart is not None and (facts := self._restart(time.time())) is not None:
            self._log.event("restart", **facts)
        self._restart = None

    def checkpoint(self, step: int, *, why: str) -> None:
        """Saves the state, unless this step's is saved already."""
        if step == self._saved_step:
            return
        started = time.monotonic()
        with self._world.pulse.during(Phase.SAVING):
            path = self._checkpoints.save_together(
                step, self._learner.tensors(), self._world, seed=self._seed, generation=self._generation
            )
        self._saved_step, self._saved_at = step, time.monotonic()
        cost_s = self._saved_at - started
        self._log.event(
            "checkpoint", step=step, path=path, seconds=round(cost_s, 4), copy_s=0.0, why=why,
            generation=self._generation,
        )  # fmt: skip
        if why == "time" and self._world.rank == 0 and cost_s / BUDGET > self._every_s * 1.5:
            self._every_s = cost_s / BUDGET
            self._log.say(
                f"checkpoints every {self._every_s:.1f} s instead of {self._asked_s:g} s: "
                f"one costs {cost_s:.3f} s, and {BUDGET:.0%} of the time is for them"
            )

    def remember(self) -> None:
        """Nothing: what could be remembered is in the last checkpoint."""

    def forget_snapshots(self) -> None:
        """Nothing: there are none."""

    def _agree(self, *own: bool) -> list[bool]:
        """Whether it is so at any rank."""
        return [bool(count) for count in self._world.sum(torch.tensor([int(one) for one in own])).tolist()]
