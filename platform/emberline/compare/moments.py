"""Count, mean and spread of values, kept so that partitions add up."""

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Moments:
    """Summary of one value a unit.

    Attributes:
        count: number of values.
        mean: 0 when there are none.
        m2: sum of squared deviations from the mean.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def of(cls, count: int, total: float, m2: float) -> Self:
        return cls(count, total / count, m2) if count else cls()

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of both sets of values together.

        Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance" (1983).
        """
        count = self.count + other.count
        if not count:
            return Moments()
        delta = other.mean - self.mean
        return Moments(
            count,
            (self.count * self.mean + other.count * other.mean) / count,
            self.m2 + other.m2 + delta * delta * self.count * other.count / count,
        )

    @property
    def variance(self) -> float:
        """Unbiased sample variance; NaN for fewer than two values."""
        return self.m2 / (self.count - 1) if self.count > 1 else math.nan

    def with_extremes(self) -> "Moments":
        """The same with one 0 and one 1 added, for values in [0, 1].

        A rate of 0 errors in 60 units has no spread in the sample, but is not known exactly.
        """
        return self + Moments(2, 0.5, 0.5)
