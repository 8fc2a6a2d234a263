"""The order of rows is a function of seed and epoch."""

import numpy as np
import pytest

from emberline.data.order import order, windowed_order


def test_it_is_the_same_everywhere_and_for_ever():
    assert order(7, 3, 10).tolist() == [8, 4, 5, 3, 6, 0, 9, 7, 1, 2]  # pinned: a change would reshuffle running jobs


def test_epochs_and_seeds_differ():
    assert order(7, 3, 100).tolist() != order(7, 4, 100).tolist()
    assert order(7, 3, 100).tolist() != order(8, 3, 100).tolist()


@pytest.mark.parametrize("window", [1, 2, 5, 100])
def test_a_windowed_order_has_each_row_once_and_keeps_windows_together(window):
    sizes = (5, 0, 7, 3, 11, 4)
    rows = windowed_order(1, 2, sizes, window)
    assert sorted(rows.tolist()) == list(range(30))
    group_of = np.repeat(np.arange(6), sizes)[rows]
    changes = 1 + int((np.diff(group_of) != 0).sum())
    assert window > 1 or changes == 5  # group after group
    assert windowed_order(1, 2, (), window).size == 0
