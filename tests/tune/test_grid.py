"""What is tried, and what counts as best."""

from emberline.recipe import Tuned
from emberline.tune.grid import Observed, Trial, best, candidates


def trial(workers, rps, p99_ms, failed=0):
    return Trial(Tuned(workers=workers, threads=1, batch_size=8, batch_delay_ms=0), Observed(rps, 1.0, p99_ms, failed))


def test_a_batch_of_one_is_tried_without_waiting_alone():
    tried = candidates((1, 2), (1,), (1, 32), (0, 1), cores=2)
    assert len(tried) == 6
    assert all(one.batch_delay_ms == 0 for one in tried if one.batch_size == 1)


def test_more_than_twice_the_cores_is_not_tried_unless_nothing_else_was_asked_for():
    assert {one.workers for one in candidates((1, 2, 9), (1,), (8,), (0,), cores=2)} == {1, 2}
    assert {one.workers for one in candidates((9,), (1,), (8,), (0,), cores=2)} == {9}


def test_the_fastest_within_the_objective_is_best():
    fast, slow = trial(2, 900, 40.0), trial(1, 500, 20.0)
    assert best([fast, slow], 30.0) is slow
    assert best([fast, slow], None) is fast


def test_of_equals_within_noise_the_smaller_is_best():
    small, large = trial(1, 990, 9.0), trial(2, 1000, 8.0)
    assert best([large, small], None) is small


def test_one_that_failed_requests_is_never_best():
    assert best([trial(1, 1000, 5.0, failed=1)], None) is None
    assert best([], 5.0) is None
