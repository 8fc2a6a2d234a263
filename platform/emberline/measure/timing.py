"""What interleaved rounds say: medians, spreads, and how much faster one thing is than another.

Legend of shapes: R rounds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one batch, one number a round.

    Attributes:
        wall_ms: elapsed, of shape (R,).
        cpu_ms: of the whole process, all threads, of shape (R,).
    """

    batch: int
    wall_ms: Samples
    cpu_ms: Samples

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Timing":
        return cls(raw["batch"], np.asarray(raw["wall_ms"], np.float64), np.asarray(raw["cpu_ms"], np.float64))

    def to_json(self) -> dict[str, Any]:
        return {"batch": self.batch, "wall_ms": self.wall_ms.tolist(), "cpu_ms": self.cpu_ms.tolist()}

    @property
    def wall_median_ms(self) -> float:
        return float(np.median(self.wall_ms))

    @property
    def cpu_median_ms(self) -> float:
        return float(np.median(self.cpu_ms))

    @property
    def spread_ms(self) -> float:
        """Distance between the quartiles of the wall time."""
        low, high = np.percentile(self.wall_ms, [25, 75])
        return float(high - low)


def speedup(baseline: Timing, candidate: Timing) -> float:
    """Median over rounds of the baseline's wall time over the candidate's.

    Both were timed in the same rounds, so what slowed a whole round (another process, a lower clock) cancels out.
    """
    return float(np.median(baseline.wall_ms / candidate.wall_ms))
