"""Treatment minus control of one metric: estimate and variance by its kind, the interval by its decision."""

import math
from dataclasses import dataclass, field

from emberline.compare import confidence_sequence, obrien_fleming
from emberline.compare.confidence_sequence import Interval
from emberline.compare.cuped import adjustment
from emberline.compare.joint import JointMoments
from emberline.compare.moments import Moments
from emberline.compare.ratio import linearised
from emberline.compare.share_difference import variance_of_share_difference
from emberline.experiment import Metric


@dataclass(frozen=True)
class Sample:
    """One metric of one variant.

    Attributes:
        values: one value a unit; of a ratio, the linearised ones.
        joint: of a ratio its two sums; of a metric with a covariate both, over the units that have one.
    """

    values: Moments = field(default_factory=Moments)
    joint: JointMoments = field(default_factory=JointMoments)

    def __add__(self, other: "Sample") -> "Sample":
        return Sample(self.values + other.values, self.joint + other.joint)


@dataclass(frozen=True)
class Difference:
    """Treatment minus control.

    Attributes:
        variance: of the estimate; NaN while an arm has fewer than two values.
        variance_ratio: of the variance with the covariate to that without; 1 where there is none.
    """

    control: float
    treatment: float
    estimate: float
    variance: float
    units: int
    variance_ratio: float = 1.0

    def interval(self, *, alpha: float, planned_units: int, planned: bool = False) -> Interval:
        """The interval that may be looked at at any time, or the one of a planned decision."""
        if not math.isfinite(self.variance) or not math.isfinite(self.estimate):
            return Interval(self.estimate, -math.inf, math.inf)
        method = obrien_fleming if planned else confidence_sequence
        half = method.half_width(self.variance, self.units, alpha=alpha, planned_units=planned_units)
        return Interval(self.estimate, self.estimate - half, self.estimate + half)

    def p_value(self, *, alpha: float, planned_units: int) -> float:
        """Of no difference, valid at any look."""
        if not math.isfinite(self.variance):
            return 1.0
        return confidence_sequence.p_value(
            self.estimate, self.variance, self.units, alpha=alpha, planned_units=planned_units
        )


def difference_of(metric: Metric, control: Sample, treatment: Sample) -> Difference:
    """The difference as the metric's kind asks: rates and exceedances with a floor under their variance, ratios by the
    delta method, any of them but ratios with their covariate taken out.
    """
    if metric.kind == "ratio":
        first, second = linearised(control.joint), linearised(treatment.joint)
    else:
        first, second = control.values, treatment.values
    units = first.count + second.count
    variance = math.nan
    if min(first.count, second.count) > 1:
        variance = first.variance / first.count + second.variance / second.count
    if metric.kind in {"rate", "exceedance"} and min(first.count, second.count):
        variance = variance_of_share_difference(first, second)
    taken = adjustment((control.values, control.joint), (treatment.values, treatment.joint))
    if metric.covariate is None:
        return Difference(first.mean, second.mean, second.mean - first.mean, variance, units)
    estimate = second.mean - first.mean + taken.difference
    return Difference(first.mean, second.mean, estimate, variance * taken.variance_ratio, units, taken.variance_ratio)
