"""The same assessment by two engines; Spark is an extra, and starting it takes a while."""

import pytest

from emberline.compare.observe import observe

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SPEC = {
    "primary": {"metric": "correct", "covariate": {"metric": "before"}, "margin": -0.1},
    "guardrails": [{"metric": "latency_ms", "kind": "exceedance", "above": 50, "max_increase": 0.1}],
    "secondary": [
        {"metric": "correct", "kind": "ratio", "per": "requests"},
        {"metric": "latency_ms", "kind": "mean", "winsorise": [0, 60]},
    ],
    "segments": [{"name": "high", "metric": "before", "above": 0.5}],
}


@pytest.fixture(scope="module")
def engine():
    from emberline.compare.spark import Spark, session

    with session("local[2]") as spark:
        yield lambda workers=1: Spark(spark, workers)


@pytest.fixture
def data(made, traffic):
    """Rows in partitions, some there twice, and outcomes beside the partitions as a warehouse leaves them."""
    running = made.in_step(2, **SPEC)
    rows = traffic.send(running, 300, requests=3, copies=2, errors=(0.1, 0.05), slow=(0.2, 0.1))
    before = [
        {**traffic.outcome(row, (index % 10) / 10, by_request=False, at=900.0), "event_id": f"b{row['unit']}"}
        | {"metric": "before"}
        for index, row in enumerate(rows)
    ]
    traffic.write("outcomes", before, made.OUTCOMES)
    for path in list((traffic.data / "outcomes").glob("part=*/*.parquet"))[::3]:
        path.rename(traffic.data / "outcomes" / path.name)
    return running, traffic.data


def by_spark(engine, running, data):
    from emberline.compare.sums import Question, observe_rows
    from emberline.exposure import EXPOSURES, OUTCOMES

    engine.open("exposures", EXPOSURES, data / "exposures")
    engine.open("outcomes", OUTCOMES, data / "outcomes")
    return observe_rows(engine, Question(running, running.window))


def test_spark_sums_what_duckdb_sums(engine, data):
    running, folder = data
    ours, theirs = observe(running, folder), by_spark(engine(), running, folder)
    assert ours.crossed == theirs.crossed
    assert ours.arms.keys() == theirs.arms.keys()
    for name, arm in ours.arms.items():
        other = theirs.arms[name]
        assert (arm.units, arm.requests, arm.fallbacks) == (other.units, other.requests, other.fallbacks)
        assert arm.metrics.keys() == other.metrics.keys()
        for key, moments in arm.metrics.items():
            assert moments.count == other.metrics[key].count
            assert moments.mean == pytest.approx(other.metrics[key].mean, abs=1e-9)
            assert moments.m2 == pytest.approx(other.metrics[key].m2, abs=1e-9)
        for key, joint in arm.joint.items():
            assert joint.cross == pytest.approx(other.joint[key].cross, abs=1e-9)


@pytest.mark.parametrize(
    ("workers", "outcomes", "shown"),
    [(1, 10, "BuildLeft"), (3, 400, "SortMergeJoin"), (1, 900, "BuildRight")],
)
def test_the_plan_shows_the_join_that_the_rule_names(engine, workers, outcomes, shown):
    asked = engine(workers)
    asked.define("once", f"SELECT id AS unit, 'e' AS event FROM range({outcomes})")
    asked.define("units", "SELECT id AS unit FROM range(500)")
    plan = asked.explain(
        f"SELECT {asked.hint('o once', 'u units')} o.event FROM once o JOIN units u ON o.unit = u.unit"
    )
    assert shown in plan
    assert ("SortMergeJoin" in plan) == (shown == "SortMergeJoin")
    asked.forget()
