"""Rows on disk against sums computed by hand."""

from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from emberline.compare.observations import Observations
from emberline.compare.observe import observe
from emberline.errors import EmberlineError


def shares(rows):
    """Units of each variant that the rows show."""
    units = defaultdict(set)
    for row in rows:
        if not row["shadow"]:
            units[row["variant"]].add(row["unit"])
    return {name: len(members) for name, members in units.items()}


def test_folders_that_are_not_there_are_no_observations(made, tmp_path):
    assert observe(made.in_step(1), tmp_path / "nowhere") == Observations()


def test_an_experiment_that_has_not_begun_observes_nothing(made, traffic):
    running = made.in_step(1)
    traffic.send(running, 50)
    assert observe(made.experiment(), traffic.data) == Observations()


def test_units_requests_and_values_are_counted_once_a_unit(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 400, requests=3)
    seen = observe(running, traffic.data)
    assert {name: arm.units for name, arm in seen.arms.items()} == shares(rows)
    assert sum(arm.requests for arm in seen.arms.values()) == 1200
    assert sum(arm.metrics["correct"].count for arm in seen.arms.values()) == 400
    values = defaultdict(list)
    for path in (traffic.data / "outcomes").glob("part=*/*.parquet"):
        for outcome in pq.read_table(path).to_pylist():
            values[outcome["unit"]].append(outcome["value"])
    arm_of = {row["unit"]: row["variant"] for row in rows}
    for name, arm in seen.arms.items():
        means = [sum(v) / len(v) for unit, v in values.items() if arm_of[unit] == name]
        assert arm.metrics["correct"].mean == pytest.approx(sum(means) / len(means), abs=1e-12)
        m2 = sum((mean - arm.metrics["correct"].mean) ** 2 for mean in means)
        assert arm.metrics["correct"].m2 == pytest.approx(m2, abs=1e-9)


def test_doubled_exposures_and_outcomes_do_not_count_twice(made, tmp_path):
    running = made.in_step(2)
    once, twice = made.Traffic(tmp_path / "once"), made.Traffic(tmp_path / "twice")
    once.send(running, 200, requests=2)
    twice.send(running, 200, requests=2, copies=3)
    first, second = observe(running, once.data), observe(running, twice.data)
    assert first.arms["int8"].requests == second.arms["int8"].requests
    assert first.arms["int8"].metrics["correct"].count == second.arms["int8"].metrics["correct"].count
    assert first.arms["int8"].metrics["correct"].mean == pytest.approx(second.arms["int8"].metrics["correct"].mean)


def test_an_event_sent_again_does_not_outweigh_another_of_its_unit(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 40, outcomes=False)
    wrong = [traffic.outcome(row, 0.0) for row in rows]
    right = [{**traffic.outcome(row, 1.0), "event_id": f"again-{index}"} for index, row in enumerate(rows)]
    traffic.write("outcomes", wrong + right * 3, made.OUTCOMES)
    assert all(arm.metrics["correct"].mean == 0.5 for arm in observe(running, traffic.data).arms.values())


def test_one_partition_at_a_time_gives_the_sums_of_all_at_once(made, traffic, monkeypatch):
    running = made.in_step(2)
    traffic.send(running, 200, requests=2, errors=(0.1, 0.1))
    together = observe(running, traffic.data)
    monkeypatch.setattr("emberline.compare.observe.BATCH_BYTES", 0)
    apart = observe(running, traffic.data)
    assert {name: arm.units for name, arm in apart.arms.items()} == {n: a.units for n, a in together.arms.items()}
    for name, arm in together.arms.items():
        for key, moments in arm.metrics.items():
            assert apart.arms[name].metrics[key].mean == pytest.approx(moments.mean, abs=1e-12)
            assert apart.arms[name].metrics[key].m2 == pytest.approx(moments.m2, abs=1e-9)


def test_only_the_current_configuration_since_its_confirmation_counts(made, traffic):
    running = made.in_step(2, since=1000.0)
    traffic.send(running, 100, at=999.0)
    traffic.send(running, 100, first=100, at=1001.0, config_version="trial-1-other")
    traffic.send(running, 100, first=200, at=1001.0)
    traffic.send(made.in_step(2, name="another"), 100, first=300)
    assert sum(arm.units for arm in observe(running, traffic.data).arms.values()) == 100


def test_rows_after_the_verdict_do_not_count_but_late_labels_do(made, traffic):
    running = made.in_step(2)
    traffic.send(running, 50, at=1001.0, outcomes=False)
    rows = traffic.send(running, 50, first=50, at=1500.0, outcomes=False)
    early = traffic.send(running, 50, first=100, at=1002.0, outcomes=False)
    late = [traffic.outcome(row, 1.0, at=9000.0) for row in (*rows, *early)]
    traffic.write("outcomes", late, made.OUTCOMES)
    judged = {"config_version": running.config_version, "step": 2, "since": 1000.0, "until": 1400.0}
    status = {**running.status.model_dump(), "phase": "Shipped", "revision": 9, "judged": judged}
    seen = observe(made.experiment(status=status), traffic.data)
    assert sum(arm.units for arm in seen.arms.values()) == 100
    assert sum(arm.metrics["correct"].count for arm in seen.arms.values()) == 50


def test_outcomes_of_a_unit_count_from_its_first_exposure_on(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 60, at=1010.0, outcomes=False)
    before = [traffic.outcome(row, 0.0, by_request=False, at=1009.0) for row in rows[:30]]
    after = [
        {**traffic.outcome(row, 1.0, by_request=False, at=1011.0), "event_id": f"x{i}"} for i, row in enumerate(rows)
    ]
    traffic.write("outcomes", before + after, made.OUTCOMES)
    arms = observe(running, traffic.data).arms.values()
    assert sum(arm.metrics["correct"].count for arm in arms) == 60
    assert all(arm.metrics["correct"].mean == 1.0 for arm in arms)


def test_an_outcome_of_a_request_outside_the_step_does_not_count(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 40, outcomes=False)
    foreign = [{**traffic.outcome(row, 1.0), "request_id": "of-another-step"} for row in rows]
    traffic.write("outcomes", foreign, made.OUTCOMES)
    assert all("correct" not in arm.metrics for arm in observe(running, traffic.data).arms.values())


def test_errors_and_slow_requests_are_shares_of_a_units_requests(made, traffic):
    running = made.in_step(2)
    traffic.send(running, 300, requests=4, errors=(0.5, 0.0), slow=(0.25, 0.0))
    treatment = observe(running, traffic.data).arms["int8"].metrics
    assert treatment["error"].mean == pytest.approx(0.5, abs=0.05)
    assert treatment["latency_ms > 50"].mean == pytest.approx(0.25, abs=0.05)
    assert observe(running, traffic.data).arms["fp32"].metrics["error"].mean == 0.0


def test_a_request_answered_by_the_other_arm_is_an_error_of_its_own(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 300, outcomes=False)
    served = [
        {**row, "request_id": f"f{i}", "served_variant": "fp32"}
        for i, row in enumerate(rows)
        if row["variant"] == "int8"
    ]
    traffic.write("exposures", served, made.EXPOSURES)
    arm = observe(running, traffic.data).arms["int8"]
    assert arm.fallbacks == len(served)
    assert arm.metrics["error"].mean == 0.5


def test_units_in_both_variants_are_counted_apart(made, traffic):
    running = made.in_step(2)
    rows = traffic.send(running, 200)
    crossing = [
        {**row, "request_id": f"c{i}", "variant": "fp32"} for i, row in enumerate(rows) if row["variant"] == "int8"
    ][:7]
    traffic.write("exposures", crossing, made.EXPOSURES)
    seen = observe(running, traffic.data)
    assert sum(arm.metrics["correct"].count for arm in seen.arms.values()) == 193
    assert seen.crossed == 7
    assert sum(arm.units for arm in seen.arms.values()) == 193


def test_shadow_pairs_join_on_the_request(made, traffic):
    shadowing = made.in_step(0)
    rows = traffic.send(shadowing, 300, requests=2, disagree=0.1, outcomes=False)
    planted = sum(row["shadow"] and row["label"] == "8" for row in rows)
    seen = observe(shadowing, traffic.data)
    assert (seen.pairs, seen.disagreements) == (600, planted)
    assert "int8" not in seen.arms  # a mirrored copy reached nobody


def test_a_copy_that_failed_disagrees_and_a_failed_original_is_no_pair(made, traffic):
    shadowing = made.in_step(0)
    rows = traffic.send(shadowing, 20, outcomes=False)
    live = [row for row in rows if not row["shadow"]]
    new = []
    for index, row in enumerate(live):
        copy = {**row, "shadow": True, "variant": "int8", "served_variant": "int8"}
        failed = {"status": 500, "label": None}
        new += [
            {**row, "request_id": f"a{index}"},
            {**copy, **failed, "request_id": f"a{index}"},
            {**row, **failed, "request_id": f"b{index}"},
            {**copy, "request_id": f"b{index}"},
        ]
    traffic.write("exposures", new, made.EXPOSURES)
    seen = observe(shadowing, traffic.data)
    assert (seen.pairs, seen.disagreements) == (40, 20)


def test_a_broken_file_is_named(made, traffic):
    running = made.in_step(2)
    traffic.send(running, 20)
    broken = next((traffic.data / "exposures").glob("part=*/*.parquet"))
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(EmberlineError, match=broken.name):
        observe(running, traffic.data)


def test_outcomes_beside_the_partitions_count_for_their_units(made, traffic):
    running = made.in_step(2)
    traffic.send(running, 200)
    expected = observe(running, traffic.data)
    for path in list((traffic.data / "outcomes").glob("part=*/*.parquet")):
        path.rename(traffic.data / "outcomes" / path.name)
    assert observe(running, traffic.data).arms["int8"].metrics["correct"].count == (
        expected.arms["int8"].metrics["correct"].count
    )
