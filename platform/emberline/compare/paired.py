"""Which of two versions is right more often, from their answers to the same requests.

A pair counts +1 where only the treatment is right, -1 where only the control is, else 0. Pairs that agree are 0
whatever the truth is, so only disagreements need labels; and since both saw the same request, its difficulty cancels:
the variance is the share of such pairs and not that of two rates.

Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 1947, for
the estimate and its variance; the interval is the asymptotic confidence sequence of one mean, Waudby-Smith et al.,
eq. 9.
"""

import math

from emberline.compare.confidence_sequence import Interval, half_width
from emberline.compare.moments import Moments


def accuracy_difference(
    pairs: int,
    better: int,
    worse: int,
    *,
    alpha: float,
    planned_units: int,
    maybe_better: int = 0,
    maybe_worse: int = 0,
) -> Interval:
    """Accuracy of the treatment minus that of the control, valid at any look.

    Args:
        better, worse: pairs in which only the treatment, only the control is known to be right.
        maybe_better, maybe_worse: pairs that a label still missing may add to either. The interval is wide enough for
            every label that they may get.
    """
    estimate = (better - worse) / pairs if pairs else 0.0
    if not pairs:
        return Interval(estimate, -1.0, 1.0)
    lower = _bound(pairs, better, worse + maybe_worse, -1, alpha=alpha, planned_units=planned_units)
    upper = _bound(pairs, better + maybe_better, worse, +1, alpha=alpha, planned_units=planned_units)
    return Interval(estimate, lower, upper)


def _bound(pairs: int, better: int, worse: int, sign: int, *, alpha: float, planned_units: int) -> float:
    mean = (better - worse) / pairs
    # one pair each way is added to the variance: no disagreement so far is not the promise of none
    variance = (Moments(pairs, mean, better + worse - pairs * mean * mean) + Moments(2, 0.0, 2.0)).variance
    half = half_width(variance / pairs, pairs, alpha=alpha, planned_units=planned_units)
    return max(-1.0, min(1.0, math.fsum((mean, sign * half))))
