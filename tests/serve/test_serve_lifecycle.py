"""Deaths and stops: what survives, what comes back, what must be gone."""

import concurrent.futures
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from emberline import process
from emberline.errors import StageFailed


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_killed_worker_leaves_others_answering_and_comes_back(server):
    victim = server.worker_pids("1.0")[0]
    os.kill(victim, signal.SIGKILL)
    while victim in server.worker_pids("1.0"):
        pass
    answers = [server.ask(version).json()["outputs"] for version in ("1.0", "1.1") * 20]
    assert answers == [[3.0, 2.0, 1.0], [103.0, 102.0, 101.0]] * 20
    process.wait_until(lambda: len(server.worker_pids("1.0")) == 2, 90, "the second worker")
    process.wait_until(lambda: server.readiness().json()["versions"][0]["lost_workers"] >= 1, 30, "its loss being told")
    assert server.readiness().status_code == 200


def test_killed_java_is_started_again_with_every_version(server):
    before = server.java_pid
    unpacked = Path(psutil.Process(before).cwd()).with_name("temp") / "models"
    os.kill(before, signal.SIGKILL)
    process.wait_until(lambda: server.readiness().status_code == 503, 30, "the outage being told")
    process.wait_until(lambda: server.readiness().status_code == 200, 150, "TorchServe being back")
    assert server.java_pid != before
    assert len(list(unpacked.iterdir())) == 2, "a folder for each version, and none of the java that was killed"
    assert server.ask("1.1").json()["outputs"] == [103.0, 102.0, 101.0]
    assert server.readiness().json()["torchserve_restarts"] >= 1


def test_nothing_is_ready_after_a_restart_before_it_answered_its_probe(start, make_archive, keys, tmp_path):
    told_by = tmp_path / "told"
    server = start(make_archive(tmp_path, "3.0", told_by=told_by, keys=keys)).ready()
    told_by.write_text("mute")
    os.kill(server.java_pid, signal.SIGKILL)
    process.wait_until(lambda: "TorchServe is back" in server.output, 60, "its being back")
    process.wait_until(lambda: server.readiness().json()["phase"] == "serving", 30, "a look", every_s=0.01)
    seen = server.readiness()
    assert seen.status_code == 503
    assert "Prediction failed" in seen.json()["versions"][0]["problem"]
    told_by.unlink()
    process.wait_until(lambda: server.readiness().status_code == 200, 30, "its right answer")
    assert server.stop() == 0


def test_parent_of_the_workers_that_cannot_be_started_ends_nothing_and_is_tried_again(start, archives):
    server = start(archives[0]).ready()
    java = psutil.Process(server.java_pid)
    folder = Path(java.cwd())
    folder.rmdir()  # without it no process can be started there
    forked = [one for one in server.processes() if any(part.endswith("prefork.py") for part in one.cmdline()[1:4])]
    min(forked, key=psutil.Process.create_time).kill()
    process.wait_until(lambda: "workers are forked from could not be started" in server.output, 30, "its being told")
    folder.mkdir()
    process.wait_until(lambda: server.readiness().json()["versions"][0]["lost_workers"] == 1, 60, "its loss being told")
    process.wait_until(lambda: server.readiness().status_code == 200, 90, "a new worker")
    assert server.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]
    assert server.stop() == 0


@pytest.mark.long
def test_java_killed_after_its_classes_were_made_ready_comes_back_and_serve_goes_on(
    start, archives, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of a machine that never served
    server = start(archives[0]).ready()
    events = server.folder / "state" / "serve.jsonl"
    process.wait_until(lambda: "java_classes_shared" in events.read_text(), 120, "java's classes being made ready")
    os.kill(server.java_pid, signal.SIGKILL)
    process.wait_until(lambda: events.read_text().count("torchserve_started") == 2, 150, "TorchServe being back")
    process.wait_until(lambda: server.readiness().status_code == 200, 60, "being ready again")
    with pytest.raises(StageFailed):  # serve looks whether classes are to be made ready 20 s after each start of java
        process.wait_until(lambda: server.child.poll() is not None, 25, "an end")
    assert server.stop() == 0, server.output


@pytest.mark.long
def test_hung_java_is_told_and_replaced(server):
    before = server.java_pid
    os.kill(before, signal.SIGSTOP)
    process.wait_until(lambda: server.readiness().status_code == 503, 20, "the hang being told")
    process.wait_until(lambda: server.readiness().status_code == 200, 150, "TorchServe being back")
    assert server.java_pid != before
    assert is_gone(before)
    assert server.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]


def test_stop_answers_every_request_already_accepted(start, archives):
    server = start(archives[0], "--set", "serve.batch_size=1", workers=2).ready()
    with concurrent.futures.ThreadPoolExecutor(12) as clients:
        asked = [clients.submit(server.ask, "1.0", sleep_s=0.3) for _ in range(11)]
        asked.append(clients.submit(server.ask, "1.0", compute_s=4.0))  # longer than the queue's own silence
        process.wait_until(lambda: server.readiness().json()["versions"][0]["pending"] > 0, 20, "a queue")
        server.child.send_signal(signal.SIGTERM)
        process.wait_until(lambda: server.readiness().status_code == 503, 60, "the health port saying no")
        assert [one.result().status_code for one in asked] == [200] * 12
    assert server.child.wait(60) == 0
    assert not (server.folder / "state" / "serve.json").exists()


def test_killed_serve_leaves_no_process_and_its_folder_is_swept(start, archives):
    server = start(archives[0], workers=2).ready()
    children = server.processes()
    assert {"java"} <= {Path(one.exe()).name for one in children}
    assert len(children) >= 4  # keeper, java, two workers
    work = Path(next(one for one in children if Path(one.exe()).name == "java").cwd()).parent
    server.child.kill()
    server.child.wait()
    killed_at = time.monotonic()
    process.wait_until(lambda: all(is_gone(one.pid) for one in children), 10, "every child being gone")
    assert time.monotonic() - killed_at < 10

    assert work.is_dir()
    assert (server.folder / "state" / "serve.json").is_file()
    second = start(archives[0])  # with the same state folder
    process.wait_until(lambda: "serving reverse" in second.output, 60, "the start of another one")
    assert not work.exists()
    assert not (server.folder / "state" / "serve.json").exists()
    began = time.monotonic()
    assert second.stop() == 0  # while it is still starting
    assert time.monotonic() - began < 20
    assert not (second.folder / "state" / "serve.json").exists()
