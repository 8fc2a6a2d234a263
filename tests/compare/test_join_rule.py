"""Source: the costs A/n + B/n + 2B of a broadcast and 3A/n + 3B/n of a sort-merge."""

import pytest

from emberline.compare.join_rule import Join, choose_join


@pytest.mark.parametrize(("larger", "smaller"), [(1000, 10), (1000, 999), (7, 7), (5_000_000, 1)])
@pytest.mark.parametrize("workers", [1, 2, 3, 10, 100, 101, 102, 10_000])
def test_the_cheaper_join_by_the_two_costs_is_chosen(workers, larger, smaller):
    broadcast = (larger + smaller) / workers + 2 * smaller
    merge = 3 * (larger + smaller) / workers
    assert (choose_join(workers, larger, smaller).kind == "broadcast") == (broadcast < merge - 1e-9)


def test_the_smaller_side_is_built_wherever_it_was_written():
    assert choose_join(2, 10, 1000) == Join("broadcast", "left")
    assert choose_join(2, 1000, 10) == Join("broadcast", "right")


def test_an_empty_table_is_broadcast():
    assert choose_join(50, 0, 0).kind == "broadcast"
    assert choose_join(50, 1000, 0) == Join("broadcast", "right")
