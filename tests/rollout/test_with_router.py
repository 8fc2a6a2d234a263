"""Controller, router and clients together: real processes and requests, a model server of one line."""

import json
import sys

import httpx
import pytest
import yaml

from emberline.experiment import load_experiment
from emberline.process import free_port, start, wait_until
from emberline.rollout.audit import read_audit

RAMP = [
    {"shadow": 1.0, "until": {"disagreement_below": 0.1, "max_wait": "1h"}},
    {"weight": 5000, "until": {"max_wait": "1h"}},
]


@pytest.fixture
def stack(made, serve_json, tmp_path):
    """Router and controller in one folder; yields the router's address."""
    upstream = serve_json(lambda _request: (200, {"label": "3", "score": 0.9}))
    folder = tmp_path / "state" / "experiments"
    folder.mkdir(parents=True)
    primary = {"metric": "correct", "margin": -0.2}
    (folder / "trial.yaml").write_text(yaml.safe_dump(made.document(ramp=RAMP, primary=primary)))
    port = free_port()
    program = [sys.executable, "-m", "emberline.cli"]
    route = ["route", "--port", port, "--upstream", f"digits@1.0={upstream}", "--upstream", f"digits@1.1={upstream}"]
    router = start(
        [*program, *map(str, route), "--default", "digits=1.0"], name="route", cwd=tmp_path, log=tmp_path / "r"
    )
    paper = tmp_path / "state" / "route.json"
    children = [router]
    try:
        wait_until(lambda: paper.is_file() or router.poll() is not None, 60, "the router")
        admin = json.loads(paper.read_bytes())["admin"]
        rollout = ["rollout", "--route", f"http://127.0.0.1:{port}", "--envoy-admin", admin, "--interval", "0.3s"]
        children.append(start([*program, *rollout, "--until-done"], name="rollout", cwd=tmp_path, log=tmp_path / "c"))
        yield f"http://127.0.0.1:{port}", folder, children[1]
    finally:
        for child in reversed(children):
            child.stop()


def test_an_experiment_goes_from_shadow_to_its_end_on_live_requests(stack, tmp_path):
    address, folder, controller = stack
    asked = 0
    with httpx.Client(base_url=address, timeout=10) as client:
        while load_experiment(folder / "trial.yaml").status.phase not in {"Shipped", "RolledBack", "Invalid"}:
            assert asked < 20_000, (tmp_path / "c").read_text()
            assert controller.poll() in (None, 0), (tmp_path / "c").read_text()
            outcomes = []
            for index in range(asked, asked + 50):
                answer = client.post("/predictions/digits", json={"n": 1}, headers={"x-unit-id": f"u{index}"})
                assert answer.status_code == 200
                told = {"event_id": f"e{index}", "unit": f"u{index}", "metric": "correct", "value": 1}
                outcomes.append({**told, "request_id": answer.headers["x-request-id"]})
            assert client.post("/v1/outcomes", json={"outcomes": outcomes}).status_code == 202
            asked += 50
        ended = load_experiment(folder / "trial.yaml").status
        assert ended.phase == "Shipped", ended.reason
        assert controller.wait(30) == 0  # it has seen the routers take the end, too
        answer = client.post("/predictions/digits", json={"n": 1}, headers={"x-unit-id": "anybody"})
        assert answer.headers["x-variant"] == "int8"
    events = [line["event"] for line in read_audit(folder, "trial")]
    assert events == ["begin", "confirmed", "advance", "confirmed", "ship"]


def test_an_experiment_that_the_router_refuses_has_not_begun_and_may_still_be_mended(stack, tmp_path, made):
    _, folder, _ = stack
    variants = [{"name": "new", "version": "9.9"}, {"name": "old", "version": "9.8", "control": True}]
    document = made.document("typo", model="letters", variants=variants, ramp=RAMP)
    (folder / "typo.yaml").write_text(yaml.safe_dump(document))
    log = tmp_path / "c"
    wait_until(lambda: "typo: waits: the router refuses typo.yaml" in log.read_text(), 30, "the refusal")
    assert load_experiment(folder / "typo.yaml").status.phase == "Pending"
    assert not read_audit(folder, "typo")
