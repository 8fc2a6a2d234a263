"""Source: Robbins (1970); numbers of pairs from an earlier, independent simulation."""

import numpy as np
import pytest

from emberline.compare.disagreement import share_of


def test_no_pairs_leave_everything_open():
    interval = share_of(0, 0, alpha=0.05)
    assert (interval.lower, interval.upper) == (0.0, 1.0)


def test_all_pairs_agreeing_has_its_closed_form():
    # hits 0: (1 - p)^n = alpha * B(1, 20 + n) / B(1, 20) = alpha * 20 / (20 + n)
    interval = share_of(0, 500, alpha=0.05)
    assert interval.lower == 0.0
    assert interval.upper == pytest.approx(1 - (0.05 * 20 / 520) ** (1 / 500), abs=1e-12)


def test_all_pairs_disagreeing_reaches_one():
    assert share_of(500, 500, alpha=0.05).upper == 1.0


def certified_after(true_share, seed, below=0.01, runs=100):
    rng = np.random.default_rng(seed)
    stops = []
    for _ in range(runs):
        hits = np.cumsum(rng.random(20_000) < true_share)
        looks = (n for n in range(50, 20_001, 50) if share_of(int(hits[n - 1]), n, alpha=0.05).upper < below)
        stops.append(next(looks, np.inf))
    return np.median(stops)


def test_below_one_percent_is_certified_by_650_pairs_that_all_agree():
    # the median run at a true 0.1 % has not met a disagreement by then
    assert share_of(0, 600, alpha=0.05).upper > 0.01
    assert share_of(0, 650, alpha=0.05).upper < 0.01


def test_below_one_percent_is_certified_after_about_3250_pairs_at_half_a_percent():
    assert certified_after(0.005, 1, runs=100) == pytest.approx(3250, rel=0.15)


def test_the_true_share_is_covered_at_all_times_at_once():
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(200):
        hits = np.cumsum(rng.random(1500) < 0.03)
        intervals = (share_of(int(hits[n - 1]), n, alpha=0.05) for n in range(50, 1501, 50))
        missed += any(not interval.lower <= 0.03 <= interval.upper for interval in intervals)
    assert missed / 200 <= 0.05
