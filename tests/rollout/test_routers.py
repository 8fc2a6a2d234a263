"""Who may confirm a configuration, against routers that answer over HTTP and exposures on disk."""

import time

import duckdb
import pytest

from emberline.errors import EmberlineError
from emberline.process import free_port
from emberline.rollout.routers import has_taken, num_active


@pytest.fixture
def answering(serve_json):
    """Starts a server that answers everything with one body and headers; returns its address."""

    def make(body=None, **headers):
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return f"http://{serve_json(lambda _request: (200, body, told))}"

    return make


def test_envoys_dump_confirms_the_whole_version_and_nothing_like_it(made, answering, tmp_path):
    running = made.in_step(1)
    version = running.config_version
    taken = answering({"key": "x-config-version", "value": version})
    older = answering({"key": "x-config-version", "value": f"{version}0"})
    options = {"route": None, "data": tmp_path, "decided_at": 0.0}
    assert has_taken(running, admin=taken, **options)
    assert not has_taken(running, admin=older, **options)


def test_the_routers_header_confirms_where_there_is_no_admin_address(made, answering, tmp_path):
    running = made.in_step(1)
    options = {"admin": None, "data": tmp_path, "decided_at": 0.0}
    assert has_taken(running, route=answering(x_config_version=running.config_version), **options)
    assert not has_taken(running, route=answering(x_config_version="trial-0-old"), **options)


def test_without_a_router_the_first_exposure_confirms(made, traffic_at, tmp_path):
    running = made.in_step(1)
    options = {"admin": None, "route": None, "data": tmp_path, "decided_at": time.time() - 5}
    assert not has_taken(running, **options)
    traffic_at(tmp_path).send(running, 5, at=time.time() - 60)  # of an earlier life of the same name
    assert not has_taken(running, **options)
    traffic_at(tmp_path).send(running, 5, at=time.time())
    assert has_taken(running, **options)


def test_a_router_that_was_named_and_does_not_answer_is_an_error(made, tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EmberlineError, match="does not answer"):
        has_taken(made.in_step(1), admin=address, route=None, data=tmp_path, decided_at=0.0)


def test_requests_in_flight_are_those_of_one_cluster(answering):
    active = {"cluster.trial/fp32@1.0.upstream_rq_active": 3, "cluster.trial/int8@1.1.upstream_rq_active": 5}
    stats = [*({"name": name, "value": value} for name, value in active.items()), {"histograms": {}}]
    assert num_active(answering({"stats": stats}), "trial/fp32@1.0") == 3


@pytest.fixture
def traffic_at(made):
    return made.Traffic


def test_exposures_that_are_merged_while_they_are_read_still_confirm(made, traffic_at, tmp_path, monkeypatch):
    running = made.in_step(1)
    traffic_at(tmp_path).send(running, 20, at=time.time())
    connect, merged = duckdb.connect, []

    def merge_then_connect(*arguments):
        if not merged:  # the files were listed, and are gone under their names before they are opened
            paths = list((tmp_path / "exposures").glob("part=*/*.parquet"))
            merged.extend(path.rename(path.with_name("merged.parquet")) for path in paths)
        return connect(*arguments)

    monkeypatch.setattr(duckdb, "connect", merge_then_connect)
    assert has_taken(running, admin=None, route=None, data=tmp_path, decided_at=time.time() - 5)
    assert merged


def test_a_broken_file_of_exposures_is_an_error(made, tmp_path):
    path = tmp_path / "exposures/part=00/broken.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(EmberlineError, match="cannot be read"):
        has_taken(made.in_step(1), admin=None, route=None, data=tmp_path, decided_at=0.0)
