"""How many units a comparison needs, before it is run.

Source: Fleiss, Levin & Paik, "Statistical Methods for Rates and Proportions" (2003), section 4.2, for the fixed size of
two rates at equal arms; unequal arms and non-inferiority by the normal approximation of Chow et al., "Sample Size
Calculations in Clinical Research", section 4.2.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

from emberline.compare.confidence_sequence import half_width
from emberline.compare.disagreement import share_of

_LARGEST = 1 << 40


class TooMany(ValueError):
    """No number of units that anybody has would decide."""


def units_per_arm(baseline: float, treatment: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Units per arm of a two-sided test, looked at once, that finds a rate differing from `baseline`.

    Raises:
        ValueError: the rates are equal: no size finds no difference.
    """
    if baseline == treatment:
        raise ValueError("rates that do not differ need infinitely many units")
    mean = (baseline + treatment) / 2
    pooled = math.sqrt(2 * mean * (1 - mean))
    separate = math.sqrt(baseline * (1 - baseline) + treatment * (1 - treatment))
    return math.ceil(((_z(1 - alpha / 2) * pooled + _z(power) * separate) / (treatment - baseline)) ** 2)


def units_for_margin(variance: float, distance: float, share: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Units of both arms, looked at once, that put a two-sided interval wholly on one side of a margin.

    Args:
        variance: of one unit's value, in both arms alike.
        distance: between the true difference and the margin.
        share: the treatment's share of the units.
    """
    scale = variance * (1 / share + 1 / (1 - share))
    return math.ceil(scale * ((_z(1 - alpha / 2) + _z(power)) / distance) ** 2)


def units_at_any_look(
    variance: float, distance: float, share: float, *, tuned_to: int, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Units of both arms at which a confidence sequence, narrowest at `tuned_to`, has the power by its last look alone.

    Earlier looks only add to the power, so this is a cap, not the expectation: that lies near half of it.

    Raises:
        TooMany: the distance is too small beside the variance.
    """
    scale = variance * (1 / share + 1 / (1 - share))

    def enough(units: int) -> bool:
        error = math.sqrt(scale / units)
        half = half_width(scale / units, units, alpha=alpha, planned_units=tuned_to)
        return (distance - half) / error >= _z(power)

    return _smallest(enough)


def pairs_to_certify(below: float, expected: float, *, alpha: float = 0.05) -> int:
    """Shadow pairs that certify a disagreement rate to be `below` when it is `expected`; needs expected < below.

    Raises:
        TooMany: the two are too near to each other.
    """
    return _smallest(lambda pairs: share_of(round(expected * pairs), pairs, alpha=alpha).upper < below)


def _smallest(enough: Callable[[int], bool]) -> int:
    """Smallest number that is enough, when more never is less so."""
    high = 2
    while not enough(high):
        high *= 2
        if high > _LARGEST:
            raise TooMany("more than 10^12 units would be needed")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
