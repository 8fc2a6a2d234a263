"""Envoy is replaced without a gap, and of two on one port one may die: no request fails but those it had in flight."""

import os
import signal

import pytest

from emberline.process import wait_until


@pytest.fixture(scope="module")
def router(start_router):
    return start_router("--generation-s", "1", "--processes", "2", weight=5000)


def test_a_hot_restart_fails_no_request_and_loses_no_exposure(router, load_on):
    before = len(router.rows(columns="request_id"))
    with load_on(router.port) as load:
        for _ in range(2):
            load.more(100)
            pids = router.paper["envoy_pids"]
            os.kill(router.child.pid, signal.SIGHUP)
            wait_until(lambda pids=pids: not set(pids) & set(router.paper["envoy_pids"]), 30, "two successors")
        load.more(100)
    assert load.statuses == {200}
    # a predecessor closes idle connections as it drains; a client that writes into one just then asks again
    assert load.unanswered <= load.connections * 4
    rows = [row[0] for row in router.await_rows(before + len(load.request_ids))]
    assert len(rows) == len(set(rows))
    assert set(load.request_ids) <= set(rows)


def test_both_processes_serve_and_follow_the_experiments(router, load_on, write_experiment):
    with load_on(router.port, 8) as load:
        router.await_config(write_experiment(router.experiments, 9000, revision=4))
        load.more(300)
    assert load.statuses == {200}
    admins = router.paper["admin"].split(",")
    assert len(admins) == 2
    for admin in admins:
        dump = router.client.get(f"{admin}/config_dump?resource=dynamic_route_configs").text
        assert "digits-int8-4-" in dump


def test_a_sigkill_of_one_process_costs_only_what_it_had_in_flight(router, load_on):
    with load_on(router.port, 8) as load:
        load.more(300)
        killed = router.paper["envoy_pids"][1]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in router.paper["envoy_pids"], 20, "its successor")
        load.more(300)
    assert load.statuses == {200}
    # a killed process's connections end before its listeners: who connects again at once may be queued there once more
    assert load.unanswered <= 2 * 8, "two a connection at most"
