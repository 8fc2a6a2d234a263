"""Checkpoints in the background: the step loop pays for a copy of the state, a thread for all the rest.

Saving is paced by time, and so that all of it together, copy and thread, takes under one per cent of the time of
training: where a state is too large for the interval asked for, the interval grows, with a line that says so.
"""

import threading
import time
from collections.abc import Callable

from emberline.runlog import RunLog
from emberline.train.checkpoint import Checkpoints
from emberline.train.state import Tensors

BUDGET = 0.01


class Saving:
    """Saves the state of one world; rank 0 has one that is used.

    Args:
        every_s: seconds between two checkpoints, or more where these would cost more than the budget.
    """

    def __init__(self, checkpoints: Checkpoints, log: RunLog, *, generation: int, seed: int, every_s: float) -> None:
        self._checkpoints, self._log, self._generation, self._seed = checkpoints, log, generation, seed
        self._asked_s = self._every_s = every_s
        self._saved_at, self._saved_step = time.monotonic(), -1
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._lock = threading.RLock()  # a preemption notice is answered by a thread of its own

    def after_step(self, step: int, tensors: Callable[[], Tensors]) -> None:
        """Starts a save when it is time and none is under way.

        Raises:
            EmberlineError: the last one failed; Fenced where a newer world was the reason.
        """
        with self._lock:
            self._raise_failure()
            if time.monotonic() - self._saved_at < self._every_s or self._saves():
                return
            started = time.monotonic()
            copies = _copies(tensors())
            copy_s = time.monotonic() - started
            self._thread = threading.Thread(
                target=self._in_background, args=(step, copies, copy_s), name="checkpoint", daemon=True
            )
            self._thread.start()

    def save(self, step: int, tensors: Tensors, *, why: str) -> None:
        """Saves now and waits for it; nothing is done where this step is saved already."""
        with self._lock:
            if self._thread is not None:
                self._thread.join()
            if step != self._saved_step:
                started = time.monotonic()
                self._write(step, _copies(tensors), why=why, copy_s=round(time.monotonic() - started, 4))
            self._failure = None  # of an older state; this one is saved

    def _saves(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _in_background(self, step: int, copies: Tensors, copy_s: float) -> None:
        before_s = time.thread_time()
        try:
            self._write(step, copies, why="time", copy_s=round(copy_s, 4))
        except Exception as error:  # noqa: BLE001 - kept for the step loop, which raises it after the step under way
            self._failure = error
        self._pace(copy_s + time.thread_time() - before_s)

    def _write(self, step: int, copies: Tensors, *, why: str, copy_s: float) -> None:
        started = time.monotonic()
        path = self._checkpoints.save(step, copies, seed=self._seed, generation=self._generation)
        self._saved_step, self._saved_at = step, time.monotonic()
        self._log.event(
            "checkpoint", step=step, path=path, seconds=round(self._saved_at - started, 4), copy_s=copy_s,
            why=why, generation=self._generation,
        )  # fmt: skip

    def _pace(self, cost_s: float) -> None:
        """Lengthens the interval, in steps worth telling, where the budget asks for it."""
        needed_s = cost_s / BUDGET
        if needed_s > self._every_s * 1.5:
            self._every_s = needed_s
            self._log.say(
                f"checkpoints every {needed_s:.1f} s instead of {self._asked_s:g} s: "
                f"one costs {cost_s:.3f} s, and {BUDGET:.0%} of the time is for them"
            )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def _copies(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
