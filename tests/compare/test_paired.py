"""Source: McNemar (1947) for estimate and variance; Waudby-Smith et al. eq. 9 for the interval."""

import numpy as np
import pytest

from emberline.compare.confidence_sequence import tuning
from emberline.compare.paired import accuracy_difference

OPTIONS = {"alpha": 0.05, "planned_units": 5000}


def test_the_interval_is_that_of_mcnemars_difference():
    # 10,000 pairs, 100 only-treatment, 150 only-control: variance (250/n - (50/n)^2) / n up to the pair added each way
    found = accuracy_difference(10_000, 100, 150, **OPTIONS)
    n, rho2 = 10_000, tuning(0.05, 5000)
    spread = n * rho2 + 1
    variance = (252 - 50**2 / n) / (n + 1) / n
    half = np.sqrt(variance * 2 * spread / (n * rho2) * np.log(np.sqrt(spread) / 0.05))
    assert found.estimate == -0.005
    assert found.upper - found.estimate == pytest.approx(half, rel=1e-3)
    assert found.estimate - found.lower == pytest.approx(half, rel=1e-3)


def test_labels_that_are_missing_widen_the_interval_to_hold_whatever_they_may_say():
    open_ = accuracy_difference(4000, 20, 30, maybe_better=15, maybe_worse=10, **OPTIONS)
    best, worst = accuracy_difference(4000, 35, 30, **OPTIONS), accuracy_difference(4000, 20, 40, **OPTIONS)
    assert (open_.lower, open_.upper) == (worst.lower, best.upper)


def test_no_pairs_leave_everything_open_and_agreement_alone_is_no_certainty():
    assert accuracy_difference(0, 0, 0, **OPTIONS).upper == 1.0
    found = accuracy_difference(200, 0, 0, **OPTIONS)
    assert found.lower < -0.005 < 0.005 < found.upper


def test_equally_good_versions_are_rarely_told_apart_at_any_look():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        steps = rng.choice([-1, 0, 1], 6000, p=[0.01, 0.98, 0.01])
        better, worse = np.cumsum(steps > 0), np.cumsum(steps < 0)
        looks = range(100, 6001, 100)
        found = (accuracy_difference(n, int(better[n - 1]), int(worse[n - 1]), **OPTIONS) for n in looks)
        alarms += any(interval.lower > 0 or interval.upper < 0 for interval in found)
    assert alarms / 100 <= 0.05
