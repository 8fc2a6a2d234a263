"""Outcomes: taken whole or refused with the field named, on the disk before the answer, each event once."""

import json
import os
import signal
import socket
import threading

import httpx
import orjson
import pytest

from emberline.exposure import hash_unit, load_key
from emberline.process import free_port, wait_until
from emberline.route.bootstrap import render_bootstrap
from emberline.route.envoy import Envoy
from emberline.route.outcomes import InvalidOutcomes, parse_outcomes
from emberline.route.publish import Publisher
from emberline.route.render import render
from emberline.route.settings import Address, Settings, parse_upstreams


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
    ("body", "fact"),
    [
        ({}, "outcomes is missing; a list of 1 to 10,000 outcomes is required"),
        ({"outcomes": [{"event_id": "a", "metric": "m", "value": 1}]}, "outcomes.0.unit is missing; text of 1 to 256"),
        ({"outcomes": [outcome(1, value="1")]}, "outcomes.0.value is not what it should be; a number is required"),
        ({"outcomes": [outcome(1, colour="red")]}, "outcomes.0.colour is not known; event_id, unit, request_id"),
    ],
)
def test_what_is_wanted_of_a_wrong_field_is_said(body, fact):
    with pytest.raises(InvalidOutcomes) as refused:
        parse_outcomes(json.dumps(body).encode(), b"key", 0.0)
    assert fact in refused.value.fact


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
        (json.dumps({"outcomes": [outcome(1, unit=" u")]}).encode(), "outcomes.0.unit"),
        (json.dumps({"outcomes": [outcome(1, metric="no spaces")]}).encode(), "outcomes.0.metric"),
        (json.dumps({"outcomes": [outcome(1, colour="red")]}).encode(), "outcomes.0.colour"),
        (json.dumps({"outcomes": [1]}).encode(), "outcomes.0"),
        (b'{"outcomes": [{"event_id": "a", "unit": "u", "metric": "m", "value": 1e999}]}', "body"),
    ],
)
def test_a_wrong_body_is_refused_whole_with_the_field_named(router, body, field):
    reply = router.client.post(router.url + "/v1/outcomes", content=body)
    assert reply.status_code == 400
    assert reply.json()["field"] == field
    assert "Outcomes" not in reply.json()["error"], "a class of ours says nothing to a sender"
    assert reply.json()["error"]


def test_a_time_in_milliseconds_is_refused_with_the_unit_that_is_wanted():
    one = {"event_id": "1", "unit": "u", "metric": "correct", "value": 1, "time": 1_800_000_000_000 / 100}
    with pytest.raises(InvalidOutcomes, match=r"outcomes.0.time is more than a day ahead; a Unix time in seconds"):
        parse_outcomes(json.dumps({"outcomes": [one]}).encode(), b"key", 1_800_000_000.0)
    row = parse_outcomes(json.dumps({"outcomes": [{**one, "time": 1_800_000_000}]}).encode(), b"key", 1_800_000_001.0)
    assert (row[0]["time_us"], row[0]["received_us"]) == (1_800_000_000_000_000, 1_800_000_001_000_000)


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


class HangsUp(threading.Thread):
    """An endpoint that closes its first connections without a word and takes what comes after."""

    def __init__(self, times: int) -> None:
        super().__init__(daemon=True)
        self.left, self.socket = times, socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self.socket.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # the test has closed it
                return
            with connection:
                connection.recv(65_536)
                if not self.left:
                    connection.sendall(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}")
                self.left = max(0, self.left - 1)


@pytest.mark.parametrize(
    ("times", "status", "text"),
    [(2, 202, None), (1 << 30, 503, "outcomes are not taken at the moment; try again")],
)
def test_outcomes_lost_with_a_connection_are_asked_again_and_at_last_refused_as_outcomes(tmp_path, times, status, text):
    endpoint = HangsUp(times)
    endpoint.start()
    upstreams = parse_upstreams(["digits@1.0=127.0.0.1:9"])
    settings = Settings(upstreams, {"digits": "1.0"}, Address("127.0.0.1", free_port()))
    admin = Address("127.0.0.1", free_port())
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_bytes(orjson.dumps(render_bootstrap(settings, tmp_path, tmp_path / "log", admin, endpoint.address)))
    Publisher(tmp_path).write(render((), settings))
    envoy = Envoy(bootstrap, tmp_path / "envoy.log", base_id=admin.port)
    try:
        url = f"http://{settings.listen}"
        wait_until(lambda: _answers(url + "/livez"), 20, "Envoy answers")
        reply = httpx.post(url + "/v1/outcomes", json={"outcomes": [outcome(1)]})
        assert reply.status_code == status
        if text is not None:
            assert (reply.json()["error"], reply.headers["retry-after"]) == (text, "1")
            lost = httpx.post(url + "/predictions/digits", json={})
            assert lost.json()["error"] == "no server of this version answers; try again"
    finally:
        envoy.stop()
        endpoint.socket.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
