"""Each request that a variant got leaves exactly one exposure, whatever is killed on the way."""

import os
import signal
from pathlib import Path

import pytest

from emberline.exposure import hash_unit, load_key, partition_name
from emberline.process import wait_until


@pytest.fixture(scope="module")
def router(start_router):
    return start_router("--generation-s", "1", weight=5000)


def generations(router) -> set[str]:
    return {path.name for path in (router.folder / "data/exposures").glob("*/*.parquet")}


def test_an_exposure_tells_what_happened_and_to_whom_without_the_unit(router):
    answers = router.ask([(f"person-{n}", {"n": n}) for n in range(50)])
    failed = router.post("/predictions/digits", b'{"status": 503}', x_unit_id="person-x")
    columns = (
        "request_id, unit, variant, served_variant, version, model, experiment, config_version, status, label, part"
    )
    rows = {row[0]: row for row in router.await_rows(51, columns=columns)}
    assert len(rows) == 51
    key = load_key(router.folder / "data")
    for n, answer in enumerate(answers):
        row = rows[answer.headers["x-request-id"]]
        unit = hash_unit(key, f"person-{n}")
        variant, version = answer.headers["x-variant"], answer.headers["x-model-version"]
        config = answer.headers["x-config-version"]
        assert row[1:9] == (unit, variant, variant, version, "digits", "digits-int8", config, 200)
        assert f"part={row[10]}" == partition_name(unit)
    assert rows[failed.headers["x-request-id"]][8:10] == (503, None), "an error's body has no label"
    latencies = [row[0] for row in router.rows(columns="latency_ms")]
    assert all(0 < latency < 10_000 for latency in latencies)
    for path in (router.folder / "data/exposures").rglob("*"):
        assert path.is_dir() or b"person-" not in path.read_bytes()


def test_what_the_edge_refused_is_no_exposure(router):
    before = router.rows(columns="request_id")
    assert router.post("/predictions/digits").status_code == 400
    assert router.post("/predictions/digits", b"x" * (9 << 20), x_unit_id="u").status_code == 413
    forged = dict.fromkeys(("x_ember_config", "x_ember_experiment", "x_ember_unit", "x_ember_model"), "forged")
    assert router.post("/predictions/plain", **forged).status_code == 200, "nor is a model without an experiment"
    kept = router.post("/predictions/digits", x_unit_id="u").headers["x-request-id"]
    assert set(router.await_rows(len(before) + 1)) == {*before, (kept,)}
    assert "warning" not in router.log


def test_raw_logs_are_private_and_go_after_shipping(router):
    spool = router.folder / "data/spool"
    assert spool.stat().st_mode & 0o777 == 0o700
    router.post("/predictions/digits", x_unit_id="somebody")
    written = wait_until(
        lambda: [path for path in spool.glob("exposures-*.log") if path.stat().st_size], 5, "the log is written"
    )
    assert written[0].stat().st_mode & 0o777 == 0o600
    wait_until(lambda: not written[0].exists(), 10, "the log is shipped and deleted")


def test_generations_change_under_load_without_loss(router, load_on):
    before = router.rows(columns="request_id")
    known = len(generations(router))
    with load_on(router.port) as load:
        wait_until(lambda: len(generations(router)) >= known + 3, 20, "three generations")
    assert not load.unanswered
    rows = router.await_rows(len(before) + len(load.request_ids))
    assert sorted(rows) == sorted([*before, *((key,) for key in load.request_ids)])


def kill_and_await(router, load, whose: str) -> None:
    """SIGKILLs one process of a router under load, and waits until answers come again."""
    paper, answered = router.paper, len(load.request_ids)
    wait_until(lambda: len(load.request_ids) > answered + 150, 15, "answers")
    os.kill(paper[whose], signal.SIGKILL)
    if whose == "pid":
        router.child.wait(10)
        wait_until(lambda: not Path(f"/proc/{paper['envoy_pid']}").exists(), 10, "Envoy ends with its router")
        router.start()
    else:
        wait_until(lambda: router.paper["envoy_pid"] != paper["envoy_pid"], 10, "another Envoy")
    answered = len(load.request_ids)
    wait_until(lambda: len(load.request_ids) > answered + 50, 15, "answers again")


@pytest.mark.parametrize(
    ("whose", "num_kills"),
    [
        ("envoy_pid", 1),
        ("pid", 1),
        pytest.param("envoy_pid", 20, marks=pytest.mark.long),
        pytest.param("pid", 20, marks=pytest.mark.long),
    ],
)
def test_a_kill_doubles_nothing_and_loses_only_what_was_not_yet_in_the_log(start_router, load_on, whose, num_kills):
    router = start_router("--generation-s", "1", weight=5000)
    with load_on(router.port) as load:
        for _ in range(num_kills):
            kill_and_await(router, load, whose)
    assert router.stop() == 0
    rows = [row[0] for row in router.rows(columns="request_id")]
    assert len(rows) == len(set(rows)), "nothing twice"
    assert load.statuses == {200}
    # SIGKILL of Envoy: what it had not flushed, 200 ms of four connections that wait 2 ms after each answer.
    # SIGKILL of the router: its Envoy gets SIGTERM; one answer a connection may be leaving just then.
    bound = 400 if whose == "envoy_pid" else load.connections
    assert len(set(load.request_ids) - set(rows)) <= num_kills * bound


def test_a_stopped_router_has_shipped_everything(router):
    before = router.rows(columns="request_id")
    answers = router.ask([(f"u{n}", {"n": n}) for n in range(200)])
    assert router.stop() == 0
    assert not list((router.folder / "data/spool").glob("*-*.log"))
    new = [(answer.headers["x-request-id"],) for answer in answers]
    assert sorted(router.rows(columns="request_id")) == sorted([*before, *new])
