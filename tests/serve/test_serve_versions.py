"""Versions as clients, probes and operators see them."""

import httpx

from emberline.route.settings import Limits


def test_each_version_answers_as_itself(server):
    assert server.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]
    assert server.ask("1.1").json()["outputs"] == [103.0, 102.0, 101.0]


def test_a_body_as_large_as_the_router_lets_through_is_answered(server):
    body = b'{"x": [1, 2, 3], "padding": "%s"}'
    body %= b"a" * (Limits().max_body_bytes - len(body) + 2)
    url = f"http://{server.state['inference']}/predictions/reverse/1.0"
    answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=60)
    assert len(body) == Limits().max_body_bytes
    assert answer.json()["outputs"] == [3.0, 2.0, 1.0]


def test_state_file_tells_where_things_are(server):
    state = server.state
    assert state["pid"] == server.child.pid
    assert {model: sorted(versions) for model, versions in state["models"].items()} == {"reverse": ["1.0", "1.1"]}
    assert httpx.get(f"{state['health']}/livez").json() == {"live": True}


def test_readiness_has_a_line_a_version(server):
    answer = server.readiness()
    assert answer.status_code == 200
    lines = {one["version"]: (one["ready"], one["workers"]) for one in answer.json()["versions"]}
    assert lines == {"1.0": (True, {"READY": 2}), "1.1": (True, {"READY": 2})}
