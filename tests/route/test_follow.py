"""A running router follows the experiments folder without failing a request, and ends without a trace."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from emberline import process
from emberline.process import wait_until
from emberline.route.folders import Folders, sole_owner


@pytest.fixture(scope="module")
def router(start_router):
    return start_router(weight=0)


def test_weights_change_under_load_and_no_request_fails(router, load_on, write_experiment):
    took = []
    with load_on(router.port) as load:
        for revision in range(1, 21):
            began = time.monotonic()
            router.await_config(write_experiment(router.experiments, revision * 500, revision=revision))
            took.append(time.monotonic() - began)
    assert load.statuses == {200}
    assert not load.unanswered
    assert sorted(took)[len(took) // 2] < 1.0


def test_a_broken_experiment_is_refused_by_name_and_the_old_one_stays(router, load_on, write_experiment):
    path = router.experiments / "digits-int8.yaml"
    good = path.read_text()
    before = router.post("/predictions/digits", x_unit_id="u").headers["x-config-version"]
    with load_on(router.port) as load:
        path.write_text(good.replace("primary", "primery"))
        wait_until(lambda: "digits-int8.yaml: spec.primary" in router.log, 5, "the refusal by file and key")
        assert router.post("/predictions/digits", x_unit_id="u").headers["x-config-version"] == before
        path.write_text(good.replace("1.1", "7.7"))
        wait_until(lambda: "digits@7.7" in router.log, 5, "the refusal of a version without an upstream")
        assert router.post("/predictions/digits", x_unit_id="u").headers["x-config-version"] == before
        path.write_text(good)
        router.await_config(write_experiment(router.experiments, 100, revision=99))
    assert load.statuses == {200}


def test_an_experiment_that_goes_leaves_its_model_to_the_default(router, load_on, write_experiment):
    with load_on(router.port) as load:
        for path in router.experiments.iterdir():
            path.rename(path.with_suffix(".away"))
        wait_until(
            lambda: router.post("/predictions/digits").headers.get("x-variant") == "default", 5, "the default answers"
        )
        router.await_config(write_experiment(router.experiments, 100, revision=100))
    assert load.statuses == {200}
    assert not load.unanswered


def test_a_router_starts_over_a_file_that_is_broken_and_tells_which(start_router):
    one = start_router(weight=None, broken="not: [yaml")
    assert one.post("/predictions/digits").headers["x-variant"] == "default"
    assert "warning: refused" in one.log
    assert "broken.yaml: " in one.log
    assert one.client.get(f"{one.url}/readyz").json() == {"ready": True, "refused": ["broken.yaml"]}
    (one.experiments / "broken.yaml").unlink()
    wait_until(lambda: one.client.get(f"{one.url}/readyz").json() == {"ready": True}, 5, "nothing is refused")


def test_a_second_router_on_the_same_port_or_folder_says_so(router):
    emberline = [Path(sys.executable).with_name("emberline"), "route"]
    for options, fact in (
        (["--port", str(router.port), "--data", "other", "--state", "other"], f"port {router.port} is in use"),
        (["--port", "0"], "another router writes there"),
    ):
        ended = subprocess.run(
            [*emberline, *options], cwd=router.folder, capture_output=True, text=True, check=False, timeout=30
        )
        assert ended.returncode == 1
        assert fact in ended.stderr
        assert "hint: " in ended.stderr
        assert "Traceback" not in ended.stderr
    assert router.post("/predictions/digits", x_unit_id="u").status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b'{"envoy_pids": ["x"]}'])
def test_a_damaged_paper_is_set_aside_and_said(tmp_path, content):
    folders = Folders(tmp_path / "experiments", tmp_path / "data", tmp_path / "state")
    folders.state.mkdir()
    folders.paper.write_bytes(content)
    said = []
    with sole_owner(folders, said.append):
        assert not folders.paper.exists()
    assert (tmp_path / "state/route.damaged").read_bytes() == content
    assert "route.json is damaged and was set aside" in said[0]


def test_a_stopped_router_answers_what_it_has_and_leaves_no_trace(router):
    paper = router.paper
    reply = {}

    def slow() -> None:
        reply["status"] = router.post("/predictions/digits", b'{"slow_s": 1.5, "n": 1}', x_unit_id="u").status_code

    asking = threading.Thread(target=slow)
    asking.start()
    wait_until(lambda: router.child.poll() is None and _active(paper["admin"]) >= 1, 5, "the request is under way")
    router.child.send(signal.SIGTERM)
    asking.join()
    assert reply["status"] == 200
    assert router.child.wait(20) == 0
    assert not router.paper_path.exists()
    assert not Path(f"/proc/{paper['envoy_pid']}").exists()
    process.require_free_port(router.port, "the next router")


def _active(admin: str) -> int:
    stats = httpx.get(f"{admin}/stats?filter=http.main.downstream_rq_active&format=json").json()["stats"]
    return stats[0]["value"]
