"""Requests counted by the router, as the file between rounds has them."""

from emberline.compare.routed import Routed, load_routed, read_routed, write_routed


def test_only_counts_old_enough_for_their_exposures_are_compared():
    counts = Routed.begin("v1", {"int8": 10, "fp32": 100}, 1000.0)
    counts = counts.read({"int8": 15, "fp32": 200}, 1010.0)
    counts = counts.read({"int8": 30, "fp32": 500}, 1030.0)
    assert counts.settled(1029.0) is None
    assert counts.settled(1039.0) == {"int8": 0, "fp32": 0}
    assert counts.settled(1041.0) == {"int8": 5, "fp32": 100}


def test_a_restarted_router_goes_on_where_it_was():
    counts = Routed.begin("v1", {"int8": 10}, 1000.0).read({"int8": 60}, 1010.0).read({"int8": 7}, 1020.0)
    assert counts.settled(1050.0) == {"int8": 57}


def test_readings_that_follow_fast_are_not_kept_and_old_ones_are_dropped():
    counts = Routed.begin("v1", {"int8": 0}, 0.0)
    for second in range(1, 2000):
        counts = counts.read({"int8": second}, float(second))
    assert len(counts.counts) < 10
    assert 1960 <= counts.settled(2000.0)["int8"] <= 1970


def test_counts_of_another_configuration_are_not_read(made, tmp_path):
    running = made.in_step(2)
    assert read_routed(tmp_path, running) is None
    counts = Routed.begin(running.config_version, {"int8": 0}, 0.0).read({"int8": 9}, 40.0).read({"int8": 9}, 80.0)
    write_routed(tmp_path, "trial", counts)
    assert read_routed(tmp_path, running) == {"int8": 9}
    assert load_routed(tmp_path, made.in_step(1)) is None
