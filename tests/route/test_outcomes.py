"""Outcomes: taken whole or refused with the field named, on the disk before the answer, each event once."""

import json
import os
import signal

import pytest

from emberline.exposure import hash_unit, load_key
from emberline.process import wait_until


@pytest.fixture(scope="module")
def router(start_router):
    return start_router("--generation-s", "1")


def outcome(number: int, **other) -> dict:
    return {"event_id": f"e{number}", "unit": f"person-{number}", "metric": "correct", "value": 1, **other}


def send(router, *outcomes: dict):
    return router.client.post(router.url + "/v1/outcomes", json={"outcomes": outcomes})


def test_outcomes_become_rows_with_the_unit_hashed(router):
    reply = send(router, outcome(1, time=1_700_000_000.5), outcome(2, request_id="r2", value=0, metric="clicks"))
    assert (reply.status_code, reply.json()) == (202, {"accepted": 2})
    columns = "event_id, unit, request_id, metric, value, time_us"
    rows = {row[0]: row for row in router.await_rows(2, "outcomes", columns)}
    key = load_key(router.folder / "data")
    assert rows["e1"] == ("e1", hash_unit(key, "person-1"), None, "correct", 1.0, 1_700_000_000_500_000)
    assert rows["e2"][1:5] == (hash_unit(key, "person-2"), "r2", "clicks", 0.0)
    for path in (router.folder / "data").rglob("outcomes*/**/*"):
        assert path.is_dir() or b"person-" not in path.read_bytes()


def test_an_event_sent_again_counts_once(router):
    before = len(router.rows("outcomes"))
    reply = send(router, outcome(50), outcome(50, value=0))
    assert reply.json() == {"accepted": 1}
    assert send(router, outcome(50, value=0), outcome(51)).status_code == 202
    router.await_rows(before + 2, "outcomes", "event_id")
    values = dict(router.rows("outcomes", "event_id, value"))
    assert values["e50"] == 1.0, "the first of an id is kept"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"no json", "body"),
        (b"[]", "body"),
        (b"{}", "outcomes"),
        (json.dumps({"outcomes": []}).encode(), "outcomes"),
        (json.dumps({"outcomes": [outcome(1), outcome(2, value="1")]}).encode(), "outcomes.1.value"),
        (json.dumps({"outcomes": [outcome(1, value=None)]}).encode(), "outcomes.0.value"),
        (json.dumps({"outcomes": [outcome(1, unit="")]}).encode(), "outcomes.0.unit"),
        (json.dumps({"outcomes": [outcome(1, unit="x" * 257)]}).encode(), "outcomes.0.unit"),
        (json.dumps({"outcomes": [outcome(1, metric="no spaces")]}).encode(), "outcomes.0.metric"),
        (json.dumps({"outcomes": [outcome(1, colour="red")]}).encode(), "outcomes.0.colour"),
        (b'{"outcomes": [{"event_id": "a", "unit": "u", "metric": "m", "value": 1e999}]}', "body"),
    ],
)
def test_a_wrong_body_is_refused_whole_with_the_field_named(router, body, field):
    reply = router.client.post(router.url + "/v1/outcomes", content=body)
    assert reply.status_code == 400
    assert reply.json()["field"] == field
    assert "Outcomes" not in reply.json()["error"], "a class of ours says nothing to a sender"
    assert reply.json()["error"]


def test_what_was_accepted_survives_a_kill_of_the_router(router):
    before = len(router.rows("outcomes"))
    for number in range(100, 140):
        assert send(router, outcome(number)).status_code == 202
    os.kill(router.paper["pid"], signal.SIGKILL)
    router.child.wait(10)
    router.start()
    assert send(router, outcome(139), outcome(140)).status_code == 202
    wait_until(lambda: "e140" in {row[0] for row in router.rows("outcomes", "event_id")}, 15, "the last outcome")
    rows = router.await_rows(before + 41, "outcomes", "distinct event_id")
    assert {f"e{number}" for number in range(100, 141)} <= {row[0] for row in rows}
