"""How long a worker may be at one batch: the server ends one that is at it for longer, and the whole batch with it.

So whatever would take too long is given up before, by itself: a request that is too much even alone is refused, one
that only came beside such a request is told to come again. `EMBERLINE_RESPONSE_TIMEOUT_S` says how long the server
waits; where it says nothing, as on a stock TorchServe, nothing is given up.

A worker computes one batch at a time, so there is one clock for all of it.
"""

import math
import os
import time

VARIABLE = "EMBERLINE_RESPONSE_TIMEOUT_S"

# fractions of the server's patience. The preparation of one more request is begun until the first, and no request's
# takes longer than that; so as much time is left to the model, and some of it to a machine that has other work as well
_PREPARING = 0.25
_EARLY = 0.5
_COMPUTING = 0.75
_ANSWERING = 0.85


class TooLong(Exception):
    """The batch's time is up.

    Attributes:
        is_alone: the request had the model to itself from early on: it would be too much at any other time as well.
    """

    def __init__(self, *, is_alone: bool = False) -> None:
        self.is_alone = is_alone
        super().__init__("the batch takes too long")


class Clock:
    """Time since a batch's beginning, in fractions of the server's patience; stands still where nobody began one."""

    def __init__(self) -> None:
        self._patience_s = math.inf
        self._began = time.monotonic()

    def begin(self) -> None:
        """A batch has come in."""
        self._patience_s = float(os.environ.get(VARIABLE) or math.inf)
        self._began = time.monotonic()

    @property
    def now(self) -> float:
        """How much of the patience is gone."""
        return (time.monotonic() - self._began) / self._patience_s

    @property
    def longest_preparation_s(self) -> float:
        """How long one request may take to be prepared."""
        return _PREPARING * self._patience_s

    def may_prepare(self) -> bool:
        """Whether one more request of the batch may be begun."""
        return self.now < _PREPARING

    def has_prepared_too_long(self, since: float) -> bool:
        """Whether a request whose preparation began at `since` (as `now` tells it) takes too long."""
        return self.now - since > _PREPARING

    def is_early(self) -> bool:
        """Whether enough is left for the model that what then takes too long is too much by itself."""
        return self.now < _EARLY

    def check_computing(self) -> None:
        """Call it between pieces of a computation.

        Raises:
            TooLong: no further one may be begun.
        """
        if self.now > _COMPUTING:
            raise TooLong

    def may_answer(self) -> bool:
        """Whether one more answer may be made of what the model said."""
        return self.now < _ANSWERING


clock = Clock()
