"""Asymptotic confidence sequence of a difference of means: an interval that may be looked at after every unit.

Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 2024, eq. 9; `tuning` is its closed-form choice of the parameter for a planned size.
"""

import math
from dataclasses import dataclass

from emberline.compare.moments import Moments


@dataclass(frozen=True)
class Interval:
    """What is known of a difference, treatment minus control."""

    estimate: float
    lower: float
    upper: float

    def within(self, least: float, most: float) -> "Interval":
        """The part of it where the true difference can be; its coverage stays, since nothing true is cut off."""
        lower, upper = (min(max(bound, least), most) for bound in (self.lower, self.upper))
        return Interval(self.estimate, lower, upper)


def difference_of_means(control: Moments, treatment: Moments, *, alpha: float, planned_units: int) -> Interval:
    """The interval that covers the true difference at all times at once, with probability 1 - alpha.

    Differs from the reference in one way: the variance is that of a difference of two independent means, scaled by the
    units of both arms, so that arms of unequal size are treated alike.

    Args:
        planned_units: units of both arms at which the interval is narrowest compared with others of its kind.

    Returns:
        An infinite interval while an arm has fewer than two values.
    """
    estimate = treatment.mean - control.mean
    if control.count < 2 or treatment.count < 2:  # noqa: PLR2004 - no variance of one value
        return Interval(estimate, -math.inf, math.inf)
    variance = control.variance / control.count + treatment.variance / treatment.count
    half = half_width(variance, control.count + treatment.count, alpha=alpha, planned_units=planned_units)
    return Interval(estimate, estimate - half, estimate + half)


def half_width(variance_of_mean: float, units: int, *, alpha: float, planned_units: int) -> float:
    """Half the width of the sequence's interval after `units` values."""
    rho2 = tuning(alpha, planned_units)
    spread = units * rho2 + 1
    factor = 2 * spread / (units * rho2) * math.log(math.sqrt(spread) / alpha)
    return math.sqrt(variance_of_mean * factor)


def p_value(estimate: float, variance_of_mean: float, units: int, *, alpha: float, planned_units: int) -> float:
    """Smallest level at which the sequence, tuned for `alpha`, leaves 0 out: valid at every look.

    1 where nothing varies.
    """
    if not variance_of_mean or not math.isfinite(variance_of_mean):
        return 1.0
    rho2 = tuning(alpha, planned_units)
    spread = units * rho2 + 1
    exponent = estimate * estimate / variance_of_mean * units * rho2 / (2 * spread)
    return min(1.0, math.sqrt(spread) * math.exp(-exponent))


def tuning(alpha: float, planned_units: int) -> float:
    """The sequence's parameter, squared, that makes the interval narrowest at `planned_units`."""
    twice = -2 * math.log(alpha)
    return (twice + math.log(twice + 1)) / planned_units
