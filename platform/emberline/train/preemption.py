"""A notice that this process must end soon: SIGTERM (a spot instance, a drained node) or Ctrl-C."""

import signal
import time
from types import FrameType

PREEMPTED = 75  # sysexits' EX_TEMPFAIL: saved and stopped; the same command goes on from there
PEER_LOST = 3  # another worker is gone, so this one cannot go on


class Preemption:
    """Remembers a notice; the loop asks after each step.

    Attributes:
        asked: whether one came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0

    def listen(self) -> None:
        """Takes over SIGTERM and SIGINT of this process; main thread only."""
        signal.signal(signal.SIGTERM, self._remember)
        signal.signal(signal.SIGINT, self._remember)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()

    def seconds_since(self) -> float | None:
        """Seconds since this process had the notice; None where another rank had it."""
        return round(time.monotonic() - self._asked_at, 3) if self.asked else None
