"""Source: Holm (1979); p-values .01, .04, .03, .005 have the adjusted ones .03, .06, .06, .02."""

import numpy as np
import pytest

from emberline.compare.holm import holm


def test_the_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_nothing_to_adjust_and_one_claim_stay_as_they_are():
    assert holm([]) == ()
    assert holm([0.04]) == (0.04,)


def test_no_adjusted_value_exceeds_one():
    assert max(holm([0.6, 0.9, 0.7])) == 1.0


def test_a_false_claim_among_true_and_false_ones_is_made_with_at_most_alpha():
    rng = np.random.default_rng(0)
    p = rng.random((4000, 6))
    p[:, :2] *= 1e-4  # two claims that are true
    made = sum(min(holm(row)[2:]) <= 0.05 for row in p)
    assert made / 4000 <= 0.05 + 3 * (0.05 / 4000) ** 0.5
