"""Source: Deng, Knoblich & Lu (2018), eq. 4; a worked number by hand, and the spread of many ratios."""

import math

import numpy as np
import pytest

from emberline.compare.joint import JointMoments
from emberline.compare.moments import Moments
from emberline.compare.ratio import linearised


def joint(y, x) -> JointMoments:
    def of(values):
        return Moments(len(values), float(np.mean(values)), float(((values - np.mean(values)) ** 2).sum()))

    return JointMoments(of(y), of(x), float(((y - y.mean()) * (x - x.mean())).sum()))


def test_three_units_by_hand():
    # clicks 1, 2, 6 over views 2, 4, 6: R = 9/12; residuals y - R x are -0.5, -1, 1.5, their squares sum to 3.5
    found = linearised(joint(np.array([1.0, 2.0, 6.0]), np.array([2.0, 4.0, 6.0])))
    assert found.mean == 0.75
    assert found.variance == pytest.approx(3.5 / 2 / 4**2, abs=1e-12)


def test_the_variance_is_that_of_the_ratio_over_many_samples():
    rng = np.random.default_rng(0)
    views = rng.poisson(5, (4000, 300)) + 1.0
    clicks = rng.binomial(views.astype(int), rng.beta(2, 8, views.shape)).astype(float)
    seen = (clicks.sum(axis=1) / views.sum(axis=1)).var(ddof=1)
    said = np.mean([linearised(joint(y, x)).variance / 300 for y, x in zip(clicks[:400], views[:400], strict=True)])
    assert said == pytest.approx(seen, rel=0.06)


def test_a_denominator_of_nothing_is_no_ratio():
    assert math.isnan(linearised(joint(np.array([1.0, 2.0]), np.array([0.0, 0.0]))).mean)


def test_joint_moments_of_parts_add_up_to_those_of_all():
    rng = np.random.default_rng(1)
    y, x = rng.normal(1e5, 2, 1000), rng.normal(-3, 5, 1000)
    whole = sum((joint(y[part], x[part]) for part in np.split(np.arange(1000), [3, 400])), JointMoments())
    assert whole.cross == pytest.approx(joint(y, x).cross, rel=1e-9)
    assert whole.y.m2 == pytest.approx(joint(y, x).y.m2, rel=1e-9)
