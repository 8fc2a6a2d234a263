"""Source: Lindon & Malek, "Anytime-valid inference for multinomial count data"."""

import numpy as np
import pytest

from emberline.compare.sample_ratio import log_bayes_factor, sample_ratio_p


def brute_force_log_bayes_factor(counts, shares, concentration):
    """The same by the chain rule: each unit's predictive probability in turn, over the promised one."""
    seen, total = [0] * len(counts), 0.0
    for arm, count in enumerate(counts):
        for _ in range(count):
            predictive = (concentration * shares[arm] + seen[arm]) / (concentration + sum(seen))
            total += np.log(predictive / shares[arm])
            seen[arm] += 1
    return total


@pytest.mark.parametrize(("counts", "shares"), [((30, 50), (0.5, 0.5)), ((3, 90), (0.1, 0.9)), ((0, 7), (0.05, 0.95))])
def test_the_factor_equals_the_product_of_predictive_probabilities(counts, shares):
    expected = brute_force_log_bayes_factor(counts, shares, 100.0)
    assert log_bayes_factor(counts, shares) == pytest.approx(expected, abs=1e-9)


def test_no_units_say_nothing():
    assert sample_ratio_p((0, 0), (0.5, 0.5)) == 1.0


def test_millions_of_units_do_not_overflow():
    assert sample_ratio_p((5_000_000, 5_000_000), (0.5, 0.5)) == 1.0
    assert sample_ratio_p((4_900_000, 5_100_000), (0.5, 0.5)) == pytest.approx(0.0, abs=1e-300)


def run(share, runs, looks, batch, seed):
    """First look (in units) at which p falls below .01, for each run; infinite when none does."""
    rng = np.random.default_rng(seed)
    stops = np.full(runs, np.inf)
    for index in range(runs):
        treated = np.cumsum(rng.binomial(batch, share, looks))
        for look, count in enumerate(treated, start=1):
            if sample_ratio_p((int(count), look * batch - int(count)), (0.5, 0.5)) < 0.01:
                stops[index] = look * batch
                break
    return stops


def test_a_true_ratio_is_rarely_called_a_mismatch():
    assert np.isfinite(run(0.5, 200, 100, 100, 0)).mean() <= 0.01


def test_48_to_52_is_found_at_a_median_of_about_7500_units():
    assert np.median(run(0.48, 200, 200, 100, 1)) == pytest.approx(7500, rel=0.2)


@pytest.mark.long
def test_four_thousand_runs_keep_false_alarms_under_one_percent():
    assert np.isfinite(run(0.5, 4000, 300, 100, 2)).mean() <= 0.01
