"""Versions registered, scaled and drained on a TorchServe that has requests under way."""

import concurrent.futures
import re

import httpx
import pytest

from emberline import process
from emberline.errors import StageFailed
from emberline.recipe import Serve
from emberline.serve import management
from emberline.serve.management import ManagementRefused


def test_described_version_has_workers_and_queue(server):
    found = management.describe(server.state["management"], "reverse", "1.0")
    assert (found.model, found.version, found.num_ready, found.pending) == ("reverse", "1.0", 2, 0)


def test_version_nobody_registered_is_none(server):
    address = server.state["management"]
    assert management.describe(address, "reverse", "9.9") is None
    assert management.describe(address, "nobody", "1.0") is None


def test_all_versions_are_described(server):
    found = management.described_all(server.state["management"])
    assert [(one.model, one.version) for one in found] == [("reverse", "1.0"), ("reverse", "1.1")]


def test_archive_outside_the_private_store_is_refused(server, archives):
    with pytest.raises(ManagementRefused, match="does not match any allowed URL"):
        management.register(server.state["management"], f"file://{archives[0]}", Serve())


def test_scale_down_waits_for_the_requests_under_way(server):
    address = server.state["management"]
    with concurrent.futures.ThreadPoolExecutor(40) as clients:
        asked = [clients.submit(server.ask, "1.1", sleep_s=0.2) for _ in range(80)]
        process.wait_until(lambda: management.describe(address, "reverse", "1.1").pending > 0, 60, "a queue")
        management.scale(address, "reverse", "1.1", 1)
        assert [one.result().status_code for one in asked] == [200] * 80
    assert len(server.worker_pids("1.1")) == 1
    management.scale(address, "reverse", "1.1", 2)
    assert len(server.worker_pids("1.1")) == 2


def test_version_with_requests_pending_is_not_unregistered(server):
    address = server.state["management"]
    with concurrent.futures.ThreadPoolExecutor(40) as clients:
        asked = [clients.submit(server.ask, "1.1", sleep_s=0.5) for _ in range(120)]
        process.wait_until(lambda: management.describe(address, "reverse", "1.1").pending > 0, 60, "a queue")
        with pytest.raises(StageFailed, match="requests were still pending"):
            management.drain_and_unregister(address, "reverse", "1.1", timeout_s=0.3)
        assert [one.result().status_code for one in asked] == [200] * 120


def test_unregistered_version_is_retired_and_adopted_when_it_comes_back(server):
    address = server.state["management"]
    management.drain_and_unregister(address, "reverse", "1.0")  # the default one: another becomes it
    assert management.describe(address, "reverse", "1.0") is None
    management.drain_and_unregister(address, "reverse", "1.0")  # twice is as good as once
    process.wait_until(lambda: server.state["models"] == {"reverse": ["1.1"]}, 60, "its retirement")
    assert server.ask("1.1").status_code == 200

    management.register(address, "reverse-1.0.mar", Serve(workers=2))
    process.wait_until(lambda: server.state["models"] == {"reverse": ["1.1", "1.0"]}, 60, "its adoption")
    process.wait_until(lambda: len(server.readiness().json()["versions"]) == 2, 60, "its line")
    assert server.readiness().status_code == 200
    assert server.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]


def test_metrics_tell_versions_apart_and_carry_torchserves_own(server):
    server.ask("1.1")
    text = httpx.get(f"{server.state['health']}/metrics").text
    assert 'emberline_version_ready{model_name="reverse",model_version="1.0"} 1.0' in text
    assert 'emberline_workers{model_name="reverse",model_version="1.1",status="READY"} 2.0' in text
    assert "emberline_versions_ready 2.0" in text
    assert re.search(r'^ts_inference_requests_total\{model_name="reverse",model_version="1.1"', text, re.MULTILINE)
    assert 'emberline_probe_seconds_count{model_name="reverse",model_version="1.0"}' in text
