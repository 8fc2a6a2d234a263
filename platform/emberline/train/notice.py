"""A notice to the launcher that it must end soon: SIGTERM or Ctrl-C, from its first moments on.

The handler raises, wherever the launcher is. Raised in the middle of somebody's import or callback it may be lost
there: so the notice is kept as well, and asked for before workers are started and at each look at them.
"""

import signal
from types import FrameType
from typing import NoReturn


class Interrupted(BaseException):
    """There was a notice; the workers, if there were any, have been told and waited for."""

    def __init__(self, number: int) -> None:
        self.number = number


class Notice:
    """The launcher's own notice.

    Attributes:
        number: the signal that came; 0 before.
    """

    def __init__(self) -> None:
        self.number = 0

    def listen(self) -> None:
        """Takes over SIGTERM and SIGINT of this process; main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def check(self) -> None:
        """Raises Interrupted where there was a notice."""
        if self.number:
            raise Interrupted(self.number)

    def _take(self, number: int, _frame: FrameType | None) -> NoReturn:
        self.number = number
        raise Interrupted(number)
