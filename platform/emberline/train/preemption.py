"""A notice that this process must end soon: SIGTERM (a spot instance, a drained node) or Ctrl-C.

A thread waits for it. It acts whatever the main thread is at, a collective, an evaluation or a read of data that hangs:
the state between two steps is whole all the time, except while the optimizer moves. The thread waits for that alone,
has the state saved, and ends the process. The step in flight is computed again, bit for bit, by whoever goes on.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

PREEMPTED = 75  # sysexits' EX_TEMPFAIL: saved and stopped; the same command goes on from there
PEER_LOST = 3  # another worker is gone, so this one cannot go on
_NOTICES = (signal.SIGTERM, signal.SIGINT)


class Preempted(Exception):
    """There was a notice, and all workers have saved the state together; this process is to end."""


class Preemption:
    """Ends this process at a notice, the state saved.

    Args:
        leave: ends the process with a code, now.

    Attributes:
        asked_at: when the notice came, of the clock `time.monotonic`; None before.
    """

    def __init__(self, leave: Callable[[int], NoReturn]) -> None:
        self._leave = leave
        self._save: Callable[[float], int] | None = None
        self._lock = threading.Lock()
        self._whole, self._asked = True, threading.Event()
        self._defers = False
        self.asked_at: float | None = None

    def listen(self) -> None:
        """Takes over SIGTERM and SIGINT of this process; main thread only."""
        receiver, sender = os.pipe()
        os.set_blocking(sender, False)
        for number in _NOTICES:
            signal.signal(number, lambda _number, _frame: None)  # Python writes to the pipe only for signals it handles
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOTICES)  # the server that our agent forks workers from blocks them
        threading.Thread(target=self._wait, args=(receiver,), name="notice", daemon=True).start()

    def saves(self, save: Callable[[float], int]) -> None:
        """From now on a notice calls `save` with its moment (`time.monotonic`) before it ends the process.

        Args:
            save: returns the exit code.
        """
        with self._lock:
            self._save = save

    def defers(self) -> None:
        """From now on a notice is only noted, in `asked_at`: no worker can save the state without the others."""
        with self._lock:
            self._defers = True

    def ignore(self) -> None:
        """From now on no notice is acted upon: the work is done, and the process about to end."""
        with self._lock:
            self._whole = False

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Around what changes the state: a notice waits for its end. Where it fails, nothing can be saved any more."""
        with self._lock:
            self._whole = False
            yield
            self._whole = True

    def hold(self, wait_s: float = 0.0) -> None:
        """Returns unless a notice is being acted upon, or comes in the next `wait_s` seconds; then never returns.

        For a main thread that cannot go on, but need not say so: the saving must not be cut off.
        """
        if self._asked.wait(wait_s) and self._whole and not self._defers:
            threading.Event().wait()

    def _wait(self, receiver: int) -> None:
        number = os.read(receiver, 1)[0]
        while number not in _NOTICES:
            number = os.read(receiver, 1)[0]
        self.asked_at = asked_at = time.monotonic()
        self._asked.set()
        with self._lock:
            if self._whole and not self._defers:
                self._leave(PREEMPTED if self._save is None else self._save(asked_at))
