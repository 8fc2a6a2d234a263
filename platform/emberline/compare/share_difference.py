"""Difference of two shares (values in [0, 1]), safe while an arm is small and events are rare.

The asymptotic sequence takes its variance from the sample. An arm of 60 units without one error has none, and the
interval would close around a wrong value: with 5 % of the traffic on the treatment and 0.5 % errors in both arms, 61
of 100 runs raised a false alarm. So an arm's variance is never below that of both arms pooled, and each is taken with
one 0 and one 1 added: no rate and no share of the traffic then raised more than 4 in 100.

Source: the added pair is Laplace's rule of succession; the pooled variance is that of the score test, Fleiss, Levin and
Paik, "Statistical Methods for Rates and Proportions" (2003), section 3.1.
"""

import math

from emberline.compare.confidence_sequence import Interval, half_width
from emberline.compare.moments import Moments


def difference_of_shares(control: Moments, treatment: Moments, *, alpha: float, planned_units: int) -> Interval:
    """As `difference_of_means`, for values in [0, 1]; an infinite interval while an arm has no value."""
    estimate = treatment.mean - control.mean
    if not control.count or not treatment.count:
        return Interval(estimate, -math.inf, math.inf)
    variance = variance_of_share_difference(control, treatment)
    half = half_width(variance, control.count + treatment.count, alpha=alpha, planned_units=planned_units)
    return Interval(estimate, estimate - half, estimate + half)


def variance_of_share_difference(control: Moments, treatment: Moments) -> float:
    """Of arms that both have values."""
    pooled = (control + treatment).with_extremes().variance
    return sum(max(pooled, arm.with_extremes().variance) / arm.count for arm in (control, treatment))
