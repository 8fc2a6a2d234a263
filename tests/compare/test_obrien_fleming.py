"""Source: the limit of O'Brien & Fleming's boundary for many looks, 2.2414 at 5 % (Jennison & Turnbull 2000, ch. 2: the
constants 1.960, 1.977, 2.004, 2.024, 2.040 of 1 to 5 looks rise towards it)."""

import numpy as np
import pytest

from emberline.compare.obrien_fleming import boundary, crossing_probability, half_width


def test_the_boundary_of_five_percent_is_the_published_one():
    assert boundary(0.05) == pytest.approx(2.2414, abs=5e-5)
    assert crossing_probability(2.2414) == pytest.approx(0.05, abs=1e-5)


def test_the_boundary_exceeds_every_constant_of_finitely_many_looks():
    assert boundary(0.05) > 2.087  # ten looks


def test_an_interval_is_that_of_one_look_a_little_widened_at_the_planned_size_and_wider_before_and_after():
    widths = [half_width(1 / n, n, alpha=0.05, planned_units=1000) * n**0.5 for n in (250, 500, 1000, 1100)]
    assert widths[2] == pytest.approx(2.2414, abs=5e-5)
    assert widths[0] == pytest.approx(2 * widths[2])
    assert widths[3] > widths[2] < widths[1]


def test_three_hundred_looks_until_the_planned_size_keep_false_alarms_under_alpha():
    rng = np.random.default_rng(0)
    n = np.arange(1, 301)
    walks = np.cumsum(rng.normal(size=(4000, 300)), axis=1) / n
    widths = np.array([half_width(1 / k, int(k), alpha=0.05, planned_units=300) for k in n])
    alarms = (np.abs(walks) > widths).any(axis=1).mean()
    assert 0.03 < alarms <= 0.055  # four standard errors above alpha are 0.064
