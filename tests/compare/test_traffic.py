"""A plan from the traffic seen so far: units, pace and the control's values, against sums by hand."""

import pytest

from emberline.compare.observe import observe
from emberline.compare.plan import from_traffic
from emberline.compare.traffic import seen_traffic

NOW = 1001.0 + 86_400


def test_units_pace_and_the_controls_rate_are_counted(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 400, requests=2, correct=(0.5, 0.9), copies=1)
    rows += traffic.send(running, 200, first=300, correct=(0.5, 0.9), at=1001.0 + 43_200)
    seen = seen_traffic(running, traffic.data, NOW)
    units = {row["unit"] for row in rows}
    assert (seen.units, seen.requests, seen.days) == (len(units), len(rows), 0.5)
    assert seen.units_per_day == 2 * len(units)
    assert 0.6 < seen.control.mean < 0.8
    baseline, deviation = from_traffic(running, seen, None, None)
    assert (baseline, deviation) == (seen.control.mean, None)
    assert from_traffic(running, seen, 0.7, None) == (0.7, None), "what was given counts"


def test_old_rows_other_models_and_short_times_say_nothing(made, traffic):
    running = made.in_step(2)
    traffic.send(running, 100)
    assert seen_traffic(running, traffic.data, NOW + 20 * 86_400).units == 0
    assert seen_traffic(running, traffic.data, NOW).units_per_day is None
    other = made.in_step(2, model="other")
    assert seen_traffic(other, traffic.data, NOW).units == 0
    assert from_traffic(running, seen_traffic(other, traffic.data, NOW), None, None) == (None, None)


def test_a_metric_of_exposures_needs_no_outcomes(made, traffic):
    running = made.in_step(2, primary={"metric": "score", "kind": "exceedance", "above": 0.5})
    rows = traffic.send(running, 200, outcomes=False)
    seen = seen_traffic(running, traffic.data, NOW)
    assert seen.control.count == 200  # every version of the traffic here is called 1.0
    assert seen.control.mean == {row["score"] > 0.5 for row in rows}.pop()


@pytest.mark.parametrize("backwards", [False, True])
def test_of_an_events_rows_the_first_received_counts_though_a_later_one_tells_an_earlier_time(made, traffic, backwards):
    running = made.in_step(2)
    rows = traffic.send(running, 60, outcomes=False)
    first = [{**traffic.outcome(row, 1.0, at=1003.0), "received_us": 5} for row in rows]
    again = [{**traffic.outcome(row, 0.0, at=1002.0), "received_us": 6} for row in rows]
    sent = first + again
    traffic.write("outcomes", sent[::-1] if backwards else sent, made.OUTCOMES)
    assert seen_traffic(running, traffic.data, NOW).control.mean == 1.0
    assert {arm.metrics["correct"].mean for arm in observe(running, traffic.data).arms.values()} == {1.0}


def test_an_event_counts_for_the_metric_that_it_was_first_told_of(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 60, outcomes=False)
    clicks = [{**traffic.outcome(row, 1.0), "metric": "clicks", "received_us": 5} for row in rows]
    again = [{**traffic.outcome(row, 1.0), "received_us": 6} for row in rows]
    traffic.write("outcomes", clicks + again, made.OUTCOMES)
    assert seen_traffic(running, traffic.data, NOW).control.count == 0
    assert not any("correct" in arm.metrics for arm in observe(running, traffic.data).arms.values())


def test_two_units_may_use_the_same_event_id(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 60, outcomes=False)
    traffic.write("outcomes", [{**traffic.outcome(row, 1.0), "event_id": "e"} for row in rows], made.OUTCOMES)
    assert sum(arm.metrics["correct"].count for arm in observe(running, traffic.data).arms.values()) == 60


def test_outcomes_of_an_earlier_version_do_not_tell_when_they_were_received_and_count(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 60, outcomes=False)
    earlier = made.OUTCOMES.remove(made.OUTCOMES.get_field_index("received_us"))
    traffic.write("outcomes", [traffic.outcome(row, 1.0, at=1003.0) for row in rows[:30]], earlier)
    assert seen_traffic(running, traffic.data, NOW).control.mean == 1.0
    assert {arm.metrics["correct"].mean for arm in observe(running, traffic.data).arms.values()} == {1.0}
    traffic.write("outcomes", [traffic.outcome(row, 0.0, at=1003.0) for row in rows[30:]], made.OUTCOMES)
    assert sum(arm.metrics["correct"].count for arm in observe(running, traffic.data).arms.values()) == 60
    assert 0 < seen_traffic(running, traffic.data, NOW).control.mean < 1


@pytest.mark.parametrize("backwards", [False, True])
def test_of_an_events_rows_the_same_one_counts_in_whatever_order_they_lie(made, traffic, backwards):
    running = made.in_step(2)
    rows = traffic.send(running, 60, outcomes=False)
    first = [traffic.outcome(row, 1.0, at=1002.0) for row in rows]
    smaller = [traffic.outcome(row, 0.0, at=1002.0) for row in rows]
    later = [traffic.outcome(row, -1.0, at=1003.0) for row in rows]
    sent = first + smaller + later
    traffic.write("outcomes", sent[::-1] if backwards else sent, made.OUTCOMES)
    assert seen_traffic(running, traffic.data, NOW).control.mean == 0.0
    assert {arm.metrics["correct"].mean for arm in observe(running, traffic.data).arms.values()} == {0.0}
