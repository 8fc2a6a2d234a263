"""Source: facts of Waudby-Smith et al. eq. 9, as computed independently by a sequential-testing library."""

import math

import numpy as np
import pytest

from emberline.compare.confidence_sequence import difference_of_means, half_width, tuning
from emberline.compare.margin import side_of
from emberline.compare.moments import Moments
from emberline.compare.share_difference import difference_of_shares


def rate(successes: int, units: int) -> Moments:
    share = successes / units
    return Moments(units, share, units * share * (1 - share))


def test_the_interval_equals_the_published_value():
    interval = difference_of_means(rate(500, 10_000), rate(600, 10_000), alpha=0.05, planned_units=5000)
    assert interval.estimate == pytest.approx(0.01, abs=1e-15)
    assert interval.lower == pytest.approx(-8.0294570536e-05, abs=1e-12)
    assert interval.upper == pytest.approx(0.0200802945705, abs=1e-12)


def test_an_arm_without_two_values_leaves_everything_open():
    interval = difference_of_means(rate(5, 10), Moments(1, 1.0, 0.0), alpha=0.05, planned_units=5000)
    assert (interval.lower, interval.upper) == (-math.inf, math.inf)
    assert side_of(interval, 0.0) == "open"


def test_no_arm_at_all_is_open_for_shares_too():
    interval = difference_of_shares(Moments(), rate(1, 10), alpha=0.05, planned_units=5000)
    assert (interval.lower, interval.upper) == (-math.inf, math.inf)


def test_the_interval_is_narrowest_at_the_planned_size_compared_with_other_tunings():
    variance, units = 0.25 / 4000, 4000
    at_plan = half_width(variance, units, alpha=0.05, planned_units=units)
    for other in (400, 1000, 16_000, 40_000):
        assert at_plan < half_width(variance, units, alpha=0.05, planned_units=other)
    assert tuning(0.05, 10) > tuning(0.05, 1000)


def test_moments_of_parts_add_up_to_those_of_all():
    values = np.random.default_rng(0).normal(1e6, 3.0, 1000)
    parts = [Moments(len(p), float(p.mean()), float(((p - p.mean()) ** 2).sum())) for p in np.split(values, [1, 400])]
    whole = sum(parts, Moments())
    assert whole.count == 1000
    assert whole.mean == pytest.approx(values.mean(), rel=1e-12)
    assert whole.variance == pytest.approx(values.var(ddof=1), rel=1e-9)
    assert Moments() + whole == whole


def test_an_arm_without_an_event_is_not_taken_as_certain():
    control, treatment = rate(25, 5000), rate(0, 60)
    raw = difference_of_means(control, treatment, alpha=0.05, planned_units=5000)
    safe = difference_of_shares(control, treatment, alpha=0.05, planned_units=5000)
    assert side_of(raw, 0.0) == "below"  # the trap: 0 of 60 shows no spread, so the interval closes
    assert side_of(safe, 0.0) == "open"


def test_many_units_make_the_safe_interval_the_plain_one():
    control, treatment = rate(50_000, 1_000_000), rate(51_000, 1_000_000)
    plain = difference_of_means(control, treatment, alpha=0.05, planned_units=5000)
    safe = difference_of_shares(control, treatment, alpha=0.05, planned_units=5000)
    assert safe.upper == pytest.approx(plain.upper, rel=0.02)


def false_alarms(*, runs, looks, batch, rate_, share, method, seed=0, planned=5000) -> float:
    """Share of runs in which some look at equal arms lies wholly on one side of 0."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((2, runs))
    hits = np.zeros((2, runs))
    alarmed = np.zeros(runs, dtype=bool)
    for _ in range(looks):
        treated = rng.binomial(batch, share, runs)
        for arm, units in enumerate((batch - treated, treated)):
            counts[arm] += units
            hits[arm] += rng.binomial(units, rate_)
        alarmed |= method(counts, hits, planned)
    return float(alarmed.mean())


def anytime(counts, hits, planned):
    """The product's own method, a look at each run."""
    outside = []
    for (nc, nt), (hc, ht) in zip(counts.T, hits.T, strict=True):
        if min(nc, nt) < 50:
            outside.append(False)
            continue
        interval = difference_of_shares(rate(hc, nc), rate(ht, nt), alpha=0.05, planned_units=planned)
        outside.append(side_of(interval, 0.0) != "open")
    return np.array(outside)


def naive_z(counts, hits, _planned):
    shares = hits / np.maximum(counts, 1)
    error = np.sqrt((shares * (1 - shares) / np.maximum(counts, 1)).sum(axis=0))
    return (np.abs(shares[1] - shares[0]) > 1.96 * error) & (counts.min(axis=0) >= 50)


def test_naive_z_raises_the_false_alarms_that_the_sequence_avoids():
    setting = {"runs": 2000, "looks": 100, "batch": 200, "rate_": 0.05, "share": 0.5}
    assert false_alarms(**setting, method=naive_z) > 0.3
    assert false_alarms(**setting, method=vectorised) <= 0.05


@pytest.mark.parametrize(("rate_", "share"), [(0.05, 0.5), (0.5, 0.1), (0.005, 0.05)])
def test_four_thousand_runs_of_three_hundred_looks_keep_false_alarms_under_alpha(rate_, share):
    assert false_alarms(runs=4000, looks=300, batch=100, rate_=rate_, share=share, method=vectorised) <= 0.05


def vectorised(counts, hits, planned):
    """`anytime` in arrays, for many runs; checked against it below."""

    def variance(units, total):
        p = (total + 1) / (units + 2)
        return p * (1 - p) * (units + 2) / (units + 1)

    n = np.maximum(counts, 1)
    pooled = variance(n.sum(axis=0), hits.sum(axis=0))
    spread = (np.maximum(variance(n, hits), pooled) / n).sum(axis=0)
    units = n.sum(axis=0)
    rho2 = tuning(0.05, planned)
    half = np.sqrt(spread * 2 * (units * rho2 + 1) / (units * rho2) * np.log(np.sqrt(units * rho2 + 1) / 0.05))
    shares = hits / n
    return (np.abs(shares[1] - shares[0]) > half) & (counts.min(axis=0) >= 50)


def test_the_arrays_of_the_simulation_say_what_the_method_says():
    rng = np.random.default_rng(5)
    counts = rng.integers(40, 3000, (2, 300)).astype(float)
    hits = np.floor(counts * rng.uniform(0, 0.3, (2, 300)))
    assert (vectorised(counts, hits, 5000) == anytime(counts, hits, 5000)).all()
    assert 0 < anytime(counts, hits, 5000).sum() < 300
