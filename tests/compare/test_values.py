"""What is asked of rows beyond means: ratios, bounds, covariates and segments on disk against sums by hand."""

from collections import defaultdict

import numpy as np
import pytest

from emberline.compare.assess import assess
from emberline.compare.observe import observe
from emberline.experiment import Segment

BEGAN = 1000.0


@pytest.fixture
def spent(made, traffic):
    """600 units, each with what it spent before and after, and how long it has been here."""

    def send(**spec):
        running = made.in_step(2, since=BEGAN, **spec)
        rows = traffic.send(running, 600, requests=2, outcomes=False)
        arm_of = {row["unit"]: row["variant"] for row in rows}
        rng = np.random.default_rng(0)
        table = {}
        for index, (unit, arm) in enumerate(sorted(arm_of.items())):
            before = float(rng.gamma(2, 10))
            spend, buys = before * 0.8 + float(rng.normal(0, 3)), float(rng.integers(1, 5))
            tenure = float(index % 50)
            table[unit] = (arm, before, spend, buys, tenure)
            facts = [("spend", spend, 1002.0), ("buys", buys, 1002.0), ("tenure", tenure, 900.0)]
            facts += [("spend", before, 990.0)] if index % 3 else []
            table[unit] += (facts,)
        outcomes = [_outcome(unit, *fact) for unit, row in table.items() for fact in row[-1]]
        traffic.write("outcomes", outcomes, made.OUTCOMES)
        return running, table

    def _outcome(unit, metric, value, at):
        return {
            "time_us": int(at * 1e6),
            "event_id": f"{unit}-{metric}-{at}",
            "unit": unit,
            "request_id": None,
            "metric": metric,
            "value": value,
        }

    return send


def by_arm(table, column):
    found = defaultdict(list)
    for row in table.values():
        found[row[0]].append(row[column])
    return {arm: np.array(values) for arm, values in found.items()}


def test_a_ratio_is_the_quotient_of_two_sums(spent, traffic):
    running, table = spent(primary={"metric": "spend", "kind": "ratio", "per": "buys", "margin": -1})
    look = assess(running, observe(running, traffic.data), 1100.0)
    spend, buys = by_arm(table, 2), by_arm(table, 3)
    assert look.metrics[0].metric == "spend / buys"
    assert look.metrics[0].treatment == pytest.approx(spend["int8"].sum() / buys["int8"].sum(), rel=1e-12)
    assert look.metrics[0].control == pytest.approx(spend["fp32"].sum() / buys["fp32"].sum(), rel=1e-12)


def test_requests_are_a_denominator_too(spent, traffic):
    running, table = spent(primary={"metric": "spend", "kind": "ratio", "per": "requests", "margin": -1})
    look = assess(running, observe(running, traffic.data), 1100.0)
    assert look.metrics[0].treatment == pytest.approx(by_arm(table, 2)["int8"].mean() / 2, rel=1e-12)


def test_values_beyond_the_declared_bounds_become_the_bounds(spent, traffic):
    running, table = spent(primary={"metric": "spend", "kind": "mean", "winsorise": [5, 30]})
    look = assess(running, observe(running, traffic.data), 1100.0)
    assert look.metrics[0].treatment == pytest.approx(np.clip(by_arm(table, 2)["int8"], 5, 30).mean(), rel=1e-12)


def test_what_units_did_before_takes_noise_out(spent, traffic):
    primary = {"metric": "spend", "kind": "mean", "covariate": {"metric": "spend"}}
    running, _ = spent(primary=primary)
    adjusted = assess(running, observe(running, traffic.data), 1100.0).metrics[0]
    assert 0.2 < adjusted.variance_ratio < 0.6  # two thirds of the units have a covariate
    assert adjusted.treatment_units + adjusted.control_units == 600


def test_nothing_reported_after_the_beginning_is_a_covariate(spent, traffic):
    primary = {"metric": "spend", "kind": "mean", "covariate": {"metric": "spend", "days": 0.00001}}
    running, _ = spent(primary=primary)
    assert assess(running, observe(running, traffic.data), 1100.0).metrics[0].variance_ratio == 1.0


def test_segments_declared_are_adjusted_and_others_are_exploratory(spent, traffic):
    segments = [{"name": "new", "metric": "tenure", "at_most": 9}, {"name": "old", "metric": "tenure", "above": 9}]
    running, table = spent(primary={"metric": "spend", "kind": "mean", "margin": -1}, segments=segments)
    looked_at = Segment(name="middle", metric="tenure", above=20, at_most=30)
    seen = observe(running, traffic.data, exploratory=[looked_at])
    found = {result.segment: result for result in assess(running, seen, 1100.0, exploratory=[looked_at]).secondary}
    old = [row[2] for row in table.values() if row[0] == "int8" and row[4] > 9]
    assert found["old"].treatment == pytest.approx(np.mean(old), rel=1e-12)
    assert found["old"].treatment_units == len(old)
    assert found["new"].p_adjusted is not None
    assert found["middle"].exploratory
    assert found["middle"].p_adjusted is None


def test_secondary_metrics_share_alpha_by_holms_method(spent, traffic):
    running, _ = spent(
        primary={"metric": "spend", "kind": "mean", "margin": -1},
        secondary=[{"metric": "buys", "kind": "mean"}, {"metric": "latency_ms", "kind": "mean"}],
    )
    look = assess(running, observe(running, traffic.data), 1100.0)
    assert [result.metric for result in look.secondary] == ["buys", "latency_ms"]
    assert all(result.side == "open" for result in look.secondary)


def shadowed(made, traffic, *, labels, noise=0, **spec):
    """400 pairs, of which 40 disagree; `labels` are what is told of the disagreements, in turn."""
    shadowing = made.in_step(0, **spec)
    rows = [row for row in traffic.send(shadowing, 400, outcomes=False) if row["shadow"]]
    fresh, outcomes = [], []
    for index, row in enumerate(rows[:40]):
        live = {**row, "request_id": f"r{index}", "variant": "fp32", "served_variant": "fp32", "shadow": False}
        fresh += [live, {**live, "shadow": True, "variant": "int8", "label": "8"}]
        for metric, value in labels[index % len(labels)].items():
            outcome = traffic.outcome(live, value)
            outcomes.append({**outcome, "event_id": f"{metric}{index}", "metric": metric})
    for index in range(noise):
        fresh.append({**rows[index], "variant": "fp32", "label": "8" if index < 2 else rows[index]["label"]})
    traffic.write("exposures", fresh, made.EXPOSURES)
    traffic.write("outcomes", outcomes, made.OUTCOMES)
    return shadowing, observe(shadowing, traffic.data)


def test_labels_of_disagreements_tell_which_version_is_right(made, traffic):
    labels = [
        {"correct": 1.0},  # labels differ: the copy is wrong
        {"correct": 0.0, "shadow_correct": 1.0},
        {"correct": 0.0, "shadow_correct": 0.0},
        {"correct": 0.0},  # the copy may yet be right
        {},
    ]
    _, seen = shadowed(made, traffic, labels=labels)
    found = seen.labels
    assert (seen.pairs, seen.disagreements) == (440, 40)
    assert (found.labelled, found.better, found.worse) == (32, 8, 8)
    assert (found.maybe_better, found.maybe_worse) == (16, 8)


def test_a_shadow_that_is_wrong_more_often_is_stopped_by_its_accuracy(made, traffic):
    ramp = [{"shadow": 1.0, "until": {"accuracy_above": -0.005}}, {"weight": 5000}]
    shadowing, seen = shadowed(made, traffic, labels=[{"correct": 1.0}], ramp=ramp)
    look = assess(shadowing, seen, 1100.0)
    assert look.verdict == "stop"
    assert look.pairs.accuracy.worse == 40
    _, fine = shadowed(made, traffic, labels=[{}], ramp=ramp)
    assert assess(shadowing, fine, 1100.0).verdict in {"running", "stop"}


def test_the_controls_disagreement_with_itself_stands_beside(made, traffic):
    shadowing, seen = shadowed(made, traffic, labels=[{}], noise=300)
    assert (seen.noise_pairs, seen.noise) == (300, 2)
    look = assess(shadowing, seen, 1100.0)
    assert look.pairs.noise.rate == pytest.approx(2 / 300)
    assert any("disagrees with itself" in reason for reason in look.reasons)


def test_scores_agree_within_a_distance(made, traffic):
    shadowing = made.in_step(0, agreement={"by": "score", "within": 0.05})
    rows = traffic.send(shadowing, 100, outcomes=False)
    moved = [
        {**row, "request_id": f"r{i}", "score": row["score"] + (0.1 if row["shadow"] and i % 4 == 1 else 0.01)}
        for i, row in enumerate(rows)
    ]
    pairs = [{**row, "request_id": f"r{i // 2}"} for i, row in enumerate(moved)]
    traffic.write("exposures", pairs, made.EXPOSURES)
    seen = observe(shadowing, traffic.data)
    assert seen.pairs == 200
    assert seen.disagreements == sum(row["shadow"] and i % 4 == 1 for i, row in enumerate(rows))
