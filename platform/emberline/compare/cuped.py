"""CUPED: takes the part of a metric out that a covariate from before the experiment explains.

Source: Deng, Xu, Kohavi & Walker, "Improving the Sensitivity of Online Controlled Experiments by Utilizing
Pre-Experiment Data", WSDM 2013, eq. 4-6: with θ = cov(y, x) / var(x) the adjusted difference is unbiased and its
variance is (1 - ρ²) times the plain one. A unit without a covariate gets the mean of those that have one.
"""

from dataclasses import dataclass

from emberline.compare.joint import JointMoments
from emberline.compare.moments import Moments


@dataclass(frozen=True)
class Adjustment:
    """What the covariate changes.

    Attributes:
        difference: to be added to treatment minus control.
        variance_ratio: of the adjusted to the plain variance, 1 - ρ².
    """

    difference: float = 0.0
    variance_ratio: float = 1.0


def adjustment(control: tuple[Moments, JointMoments], treatment: tuple[Moments, JointMoments]) -> Adjustment:
    """The adjustment for two arms; none while no covariate varies.

    Args:
        control, treatment: moments of the metric over all units, and of (metric, covariate) over units that have both.
    """
    known = control[1] + treatment[1]
    if not known.x.m2:
        return Adjustment()
    first, second = (_imputed(*arm, mean=known.x.mean) for arm in (control, treatment))
    cross, spread_x = first.cross + second.cross, first.x.m2 + second.x.m2
    spread_y = first.y.m2 + second.y.m2
    if not spread_x or not spread_y:
        return Adjustment()
    theta = cross / spread_x
    explained = min(1.0, cross * theta / spread_y)
    return Adjustment(-theta * (second.x.mean - first.x.mean), 1 - explained)


def _imputed(metric: Moments, known: JointMoments, *, mean: float) -> JointMoments:
    """Joint moments over all units, `mean` standing for the covariates that are missing."""
    missing = metric.count - known.count
    if not missing:
        return known
    mean_y = (metric.count * metric.mean - known.count * known.y.mean) / missing
    cross = (known.y.mean - mean_y) * (known.x.mean - mean) * known.count * missing / metric.count
    return JointMoments(metric, known.x + Moments(missing, mean, 0.0), known.cross + cross)
