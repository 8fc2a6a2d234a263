"""Two arms looked at again and again, judged by the product's own functions."""

from typing import Any

import numpy as np

from emberline.compare.difference import Sample, difference_of
from emberline.compare.moments import Moments
from emberline.compare.sample_ratio import sample_ratio_p
from emberline.experiment import Metric

RATE = Metric(metric="correct")
MIN_UNITS = 50  # as assessments have it


def arms(rng: np.random.Generator, looks: int, batch: int, share: float, rates: tuple[float, float]) -> tuple[Any, Any]:
    """Units and hits of (control, treatment) at each look."""
    treated = rng.binomial(batch, share, looks)
    counts = np.stack([batch - treated, treated])
    hits = rng.binomial(counts, np.array(rates)[:, None])
    return counts.cumsum(axis=1), hits.cumsum(axis=1)


def sample(hits: int, units: int) -> Sample:
    share = hits / units
    return Sample(Moments(units, share, units * share * (1 - share)))


def first_exclusion(
    counts: Any, hits: Any, *, planned_units: int, alpha: float = 0.05, planned: bool = False
) -> int | None:
    """Index of the first look whose interval leaves 0 out; None when none does."""
    for look in range(counts.shape[1]):
        control, treatment = int(counts[0, look]), int(counts[1, look])
        if min(control, treatment) < MIN_UNITS:
            continue
        if planned and control + treatment > planned_units:
            return None
        found = difference_of(RATE, sample(int(hits[0, look]), control), sample(int(hits[1, look]), treatment))
        interval = found.interval(alpha=alpha, planned_units=planned_units, planned=planned)
        if interval.lower > 0 or interval.upper < 0:
            return look
    return None


def first_mismatch(counts: Any, share: float, alpha: float = 0.01) -> int | None:
    for look in range(counts.shape[1]):
        if sample_ratio_p((int(counts[0, look]), int(counts[1, look])), (1 - share, share)) < alpha:
            return look
    return None
