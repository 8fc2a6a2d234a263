"""The real server over HTTP, as a browser or the router would ask it."""

import re
import sys
import time

import httpx
import orjson
import pytest
import yaml

from emberline.experiment import write_status
from emberline.process import free_port, start, wait_until
from emberline.rollout.audit import note


@pytest.fixture
def placed(made, tmp_path):
    """A folder with one experiment at its last step, traffic and one decision."""
    folder = tmp_path / "state" / "experiments"
    folder.mkdir(parents=True)
    (folder / "trial.yaml").write_text(yaml.safe_dump(made.document()))
    running = made.in_step(2)
    note(folder, made.in_step(1), "advance", running.status)
    write_status(folder, "trial", running.status)
    made.Traffic(tmp_path / "data").send(running, 300)
    return tmp_path


@pytest.fixture
def address(placed):
    command = [sys.executable, "-m", "emberline.cli", "dashboard", "--port", "0"]
    child = start(command, name="dashboard", cwd=placed, log=placed / "dashboard.log")
    notice = placed / "state" / "dashboard.json"
    wait_until(lambda: notice.is_file() or child.poll() is not None, 60, "the dashboard")
    said = orjson.loads(notice.read_bytes())
    assert said["pid"] == child.pid
    yield said["address"]
    assert child.stop() == 0  # SIGTERM is a normal end
    assert not notice.exists()


def test_the_pages_tell_what_goes_on_at_the_root_and_behind_the_router(address):
    with httpx.Client(base_url=address, timeout=30) as client:
        for prefix in ("", "/dashboard"):
            listing = client.get(f"{prefix}/")
            assert listing.status_code == 200
            assert 'href="trial"' in listing.text  # relative: right under either prefix
            page = client.get(f"{prefix}/trial")
            assert page.status_code == 200
            assert "<svg" in page.text
            assert "advance" in page.text
            assert 'fetch("api/trial.json")' in page.text
            numbers = client.get(f"{prefix}/api/trial.json").json()
            assert numbers["status"]["phase"] == "Ramping"
            assert sum(arm["units"] for arm in numbers["assessment"]["arms"]) == 300
        redirect = client.get("/dashboard")
        assert redirect.headers["location"].endswith("/dashboard/")
        assert client.get("/nobody").status_code == 404
        assert client.get("/api/nobody.json").status_code == 404
        assert client.get("/..%2f..%2fsecret").status_code == 404


def test_nothing_is_fetched_from_elsewhere(address):
    for path in ("/", "/trial"):
        answer = httpx.get(f"{address}{path}", timeout=30)
        assert not re.findall(r"https?://(?!www\.w3\.org)", answer.text)
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_change_shows_without_a_restart(made, placed, address):
    folder = placed / "state" / "experiments"
    write_status(folder, "trial", made.in_step(1).status)
    assert httpx.get(f"{address}/api/trial.json", timeout=30).json()["assessment"]["step"] == 1
    (folder / "trial.yaml").write_text("kind: Experiment\n")
    broken = httpx.get(f"{address}/api/trial.json", timeout=30)
    assert broken.status_code == 503
    assert "trial.yaml" in httpx.get(f"{address}/", timeout=30).text


def test_many_readers_cost_one_look(placed):
    from emberline.dashboard.views import Views

    views = Views(placed / "state" / "experiments", placed / "data")
    looks = {views.look("trial")[1].at for _ in range(20)}
    assert len(looks) <= 1 + int((time.time() - min(looks)) / 2)


def test_a_port_in_use_is_one_clear_line(placed):
    import socket

    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        command = [sys.executable, "-m", "emberline.cli", "dashboard", "--port", str(port)]
        assert start(command, name="dashboard", cwd=placed, log=placed / "taken.log").wait(60) == 1
    assert f"port {port} is in use; the dashboard needs it" in (placed / "taken.log").read_text()
