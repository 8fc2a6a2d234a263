"""Moments of two values a unit, kept so that partitions add up: a ratio's two sums, or a value with its covariate."""

from dataclasses import dataclass, field

from emberline.compare.moments import Moments


@dataclass(frozen=True)
class JointMoments:
    """Summary of (y, x) over units that have both.

    Attributes:
        y, x: each on its own; their counts are equal.
        cross: sum of the products of deviations from the means.
    """

    y: Moments = field(default_factory=Moments)
    x: Moments = field(default_factory=Moments)
    cross: float = 0.0

    @property
    def count(self) -> int:
        return self.y.count

    def __add__(self, other: "JointMoments") -> "JointMoments":
        """Moments of both sets of units together.

        Source: Chan, Golub & LeVeque (1983), whose update holds for products of two deviations alike.
        """
        count = self.count + other.count
        if not count:
            return JointMoments()
        deltas = (other.y.mean - self.y.mean) * (other.x.mean - self.x.mean)
        cross = self.cross + other.cross + deltas * self.count * other.count / count
        return JointMoments(self.y + other.y, self.x + other.x, cross)
