"""Source: Dixon (1960); the example of 20 values with 5 % drawn in at each end, as statistics textbooks have it."""

import numpy as np
import pytest

from emberline.compare.winsorise import bounds, winsorise

VALUES = [92, 19, 101, 58, 1053, 91, 26, 78, 10, 13, -40, 101, 86, 85, 15, 89, 89, 28, -5, 41]


def test_the_textbook_example_has_mean_55_65():
    within = bounds(VALUES, lower=0.05, upper=0.05)
    assert within == (-5, 101)
    assert winsorise(VALUES, within).mean() == pytest.approx(55.65)


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match="leave none"):
        bounds([1.0, 2.0], lower=0.5, upper=0.5)
    with pytest.raises(ValueError, match="leave none"):
        bounds(np.array([]))
