"""A notice that this process must end soon: SIGTERM (a spot instance, a drained node) or Ctrl-C."""

import signal
from types import FrameType

PREEMPTED = 75  # sysexits' EX_TEMPFAIL: saved and stopped; the same command goes on from there


class Preemption:
    """Remembers a notice; the loop asks after each step.

    Attributes:
        asked: whether one came.
    """

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """Takes over SIGTERM and SIGINT of this process; main thread only."""
        signal.signal(signal.SIGTERM, self._remember)
        signal.signal(signal.SIGINT, self._remember)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
