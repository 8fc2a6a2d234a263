"""Source: Deng, Xu, Kohavi & Walker (2013): the variance ratio is 1 - ρ²; the adjusted difference is unbiased."""

import numpy as np
import pytest

from emberline.compare.cuped import adjustment
from emberline.compare.difference import Sample, difference_of
from emberline.compare.joint import JointMoments
from emberline.compare.moments import Moments
from emberline.experiment import Covariate, Metric

METRIC = Metric(metric="spend", kind="mean", covariate=Covariate(metric="spend"))


def of(values) -> Moments:
    return Moments(len(values), float(np.mean(values)), float(((values - np.mean(values)) ** 2).sum()))


def joint(y, x) -> JointMoments:
    return JointMoments(of(y), of(x), float(((y - y.mean()) * (x - x.mean())).sum()))


def arms(rho, *, units=4000, lift=0.0, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    made = []
    for shift in (0.0, lift):
        x = rng.normal(10, 2, units)
        y = rho * (x - 10) / 2 + np.sqrt(1 - rho**2) * rng.normal(size=units) + shift
        known = rng.random(units) >= missing
        made.append((of(y), joint(y[known], x[known])))
    return made


def test_a_correlation_of_seven_tenths_leaves_half_the_variance():
    assert adjustment(*arms(0.7, units=100_000)).variance_ratio == pytest.approx(1 - 0.7**2, abs=0.01)


def test_the_adjusted_difference_is_that_of_a_regression_on_the_covariate():
    rng = np.random.default_rng(1)
    x = rng.normal(size=600)
    arm = np.repeat([0.0, 1.0], 300)
    y = 0.5 * arm + 0.8 * x + 0.3 * rng.normal(size=600)
    pairs = [joint(y[arm == side], x[arm == side]) for side in (0, 1)]
    taken = adjustment((pairs[0].y, pairs[0]), (pairs[1].y, pairs[1]))
    coefficients = np.linalg.lstsq(np.column_stack([np.ones(600), arm, x]), y, rcond=None)[0]
    assert pairs[1].y.mean - pairs[0].y.mean + taken.difference == pytest.approx(coefficients[1], abs=1e-12)


def test_a_covariate_that_explains_nothing_or_does_not_vary_changes_next_to_nothing():
    assert adjustment(*arms(0.0)).variance_ratio == pytest.approx(1, abs=2e-3)
    same = (Moments(9, 1.0, 3.0), JointMoments(Moments(9, 1.0, 3.0), Moments(9, 5.0, 0.0), 0.0))
    assert adjustment(same, same).difference == 0.0


def test_units_without_a_covariate_count_with_the_mean_of_the_others():
    (m0, j0), (m1, j1) = arms(0.9, lift=0.2, missing=0.5)
    full = difference_of(METRIC, Sample(m0, j0), Sample(m1, j1))
    assert full.units == 8000
    assert full.variance_ratio == pytest.approx(1 - 0.81 / 2, abs=0.03)


def test_looking_at_adjusted_intervals_at_any_time_keeps_false_alarms_under_alpha():
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(2, 4000))
        y = 0.8 * x + 0.6 * rng.normal(size=(2, 4000))
        looks = range(200, 4001, 200)
        alarms += any(not covers(y[:, :n], x[:, :n], 0.0) for n in looks)
    assert alarms / 60 <= 0.05


def covers(y, x, truth) -> bool:
    control, treatment = (Sample(of(y[side]), joint(y[side], x[side])) for side in (0, 1))
    interval = difference_of(METRIC, control, treatment).interval(alpha=0.05, planned_units=4000)
    return interval.lower <= truth <= interval.upper
