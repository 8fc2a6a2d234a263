"""What a load comes to: percentiles of the answered requests' latency, and what became of the others. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emberline.load.drive import NO_ANSWER, Sample

PERCENTILES = (50.0, 75.0, 90.0, 99.0, 99.9, 100.0)
_OK = range(200, 300)


@dataclass(frozen=True)
class Latencies:
    """Milliseconds of the requests answered with 2xx.

    Attributes:
        corrected: from when each was due, ascending.
        uncorrected: from when each was sent, ascending: what a closed loop would tell.
        late_ms: how late the 99th percentile of all requests left.
        rps: right answers a second, from the first request due to the last answer.
        statuses: number of answers by status, `NO_ANSWER` among them.
    """

    corrected: tuple[float, ...]
    uncorrected: tuple[float, ...]
    late_ms: float
    rps: float
    statuses: dict[int, int]

    @property
    def num_failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in _OK)

    def rows(self) -> list[tuple[float, float, float]]:
        """Percentile, corrected and uncorrected latency; nothing where nothing was answered rightly."""
        if not self.corrected:
            return []
        both = (np.percentile(values, PERCENTILES).tolist() for values in (self.corrected, self.uncorrected))
        return list(zip(PERCENTILES, *both, strict=True))


def latencies(samples: Sequence[Sample]) -> Latencies:
    right = [one for one in samples if one.status in _OK]
    took_s = max(one.ended for one in samples) - min(one.due for one in samples)
    return Latencies(
        corrected=tuple(sorted(1e3 * (one.ended - one.due) for one in right)),
        uncorrected=tuple(sorted(1e3 * (one.ended - one.sent) for one in right)),
        late_ms=1e3 * float(np.percentile([one.sent - one.due for one in samples], 99)),
        rps=len(right) / took_s,
        statuses=dict(sorted(Counter(one.status for one in samples).items())),
    )


def told(status: int) -> str:
    """A status in words."""
    return "no answer" if status == NO_ANSWER else str(status)
