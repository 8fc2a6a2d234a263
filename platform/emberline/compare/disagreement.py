"""Beta-binomial confidence sequence of a share, for pairs of answers that agree or don't.

Source: Robbins, "Statistical methods related to the law of the iterated logarithm" (1970): the mixture likelihood
ratio B(a + s, b + f) / B(a, b) / (p^s (1 - p)^f) is a martingale of mean 1 at the true p, so by Ville's inequality the
set of p where it stays below 1 / alpha covers the truth at all times at once.
"""

import math
from collections.abc import Callable

from emberline.compare.confidence_sequence import Interval

_BISECTIONS = 60


def share_of(hits: int, trials: int, *, alpha: float, prior: tuple[float, float] = (1.0, 20.0)) -> Interval:
    """The interval of the share of `hits`, valid at any look.

    Args:
        prior: Beta(1, 20) expects small shares: it certifies "< 1 %" in 650 pairs at a true 0.1 %.

    Returns:
        [0, 1] with estimate 0 when there are no trials.
    """
    if not trials:
        return Interval(0.0, 0.0, 1.0)
    a, b = prior
    misses = trials - hits
    mixture = _log_beta(a + hits, b + misses) - _log_beta(a, b)
    threshold = mixture + math.log(alpha)

    def inside(p: float) -> bool:
        return _log_likelihood(p, hits, misses) > threshold

    estimate = hits / trials
    lower = 0.0 if inside(0.0) else _boundary(inside, outer=0.0, inner=estimate)
    upper = 1.0 if inside(1.0) else _boundary(inside, outer=1.0, inner=estimate)
    return Interval(estimate, lower, upper)


def _boundary(inside: Callable[[float], bool], *, outer: float, inner: float) -> float:
    """Bisects for the edge of the interval; rounds outwards."""
    for _ in range(_BISECTIONS):
        middle = (outer + inner) / 2
        if inside(middle):
            inner = middle
        else:
            outer = middle
    return outer


def _log_likelihood(p: float, hits: int, misses: int) -> float:
    return _times_log(hits, p) + _times_log(misses, 1 - p)


def _times_log(count: int, p: float) -> float:
    """`count * log(p)`, with 0 · log 0 = 0."""
    if not count:
        return 0.0
    return count * math.log(p) if p > 0 else -math.inf


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
