"""The rendezvous store is killed; nobody has to do anything about it."""

import os
import signal
import socket
import sys
import threading
from contextlib import suppress

import psutil
import pytest

from emberline import process
from emberline.train.store import ReturningStore


def answering(root: psutil.Process) -> list[psutil.Process]:
    """The forks that answer, of every `emberline rendezvous` under a process."""
    commands = {}
    for one in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # a zombie too
            commands[one] = " ".join(one.cmdline())
    servers = {one for one, words in commands.items() if "rendezvous" in words and "keeper.py" not in words}
    return [one for one in servers if one.parent() in servers]


def rendezvous(toy, port):
    store = toy.spawn([sys.executable, "-m", "emberline.cli", "rendezvous", "--port", str(port)])
    process.wait_until(lambda: answers(port), 100, "the store")
    return psutil.Process(store.pid)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kill_and_wait(supervisor):
    (old,) = process.wait_until(lambda: answering(supervisor), 60, "the process that answers")
    old.kill()
    return process.wait_until(lambda: [one for one in answering(supervisor) if one != old], 60, "the next one")


def test_a_store_that_was_killed_is_told_again_what_each_client_had_said(toy):
    port = process.free_port()
    supervisor = rendezvous(toy, port)
    first, second = (ReturningStore("127.0.0.1", port, timeout_s=20) for _ in range(2))
    first.set("round.1/address", "here")
    assert [first.add("round.1/count", 1), second.add("round.1/count", 2)] == [1, 3]
    assert [second.compare_set("state", "", "a"), first.compare_set("state", "a", "b")] == [b"a", b"b"]
    kill_and_wait(supervisor)
    reader = threading.Thread(target=lambda: second.get("round.1/address"), daemon=True)
    reader.start()  # waits for what only the other client can say
    process.wait_until(lambda: second.returned_at > 0, 20, "the client that knows an older state")
    assert first.compare_set("state", "b", "c") == b"c"
    reader.join(20)
    assert not reader.is_alive()
    assert second.get("round.1/address") == b"here"
    assert second.add("round.1/count", 1) == 4
    assert second.compare_set("state", "b", "d") == b"c"
    assert min(first.returned_at, second.returned_at) > 0


def test_a_client_that_lost_only_its_connection_says_nothing_twice(toy):
    port = process.free_port()
    rendezvous(toy, port)
    one = ReturningStore("127.0.0.1", port, timeout_s=20)
    one.add("round.1/count", 1)
    one._replace(one._client, 1e12)
    assert one.add("round.1/count", 1) == 2
    assert one.returned_at == float("-inf")


@pytest.mark.parametrize("whom", ["answering", "supervisor"])
@pytest.mark.long
def test_training_goes_on_untouched_when_the_local_store_is_killed(toy, undisturbed, whom):
    (toy.folder / "gate").touch()
    launcher = toy.start(workers=2)
    toy.wait_for_step(2)
    (old,) = answering(psutil.Process(launcher.pid))
    (old if whom == "answering" else old.parent()).kill()
    process.wait_until(
        lambda: [one for one in answering(psutil.Process(launcher.pid)) if one != old], 100, "the next store"
    )
    (toy.folder / "gate").unlink()
    toy.finish(launcher)
    assert len(toy.events("world")) == 1
    assert toy.weights() == undisturbed.weights()


@pytest.mark.long
def test_agents_of_two_launchers_meet_again_after_the_store_and_a_worker_were_killed(toy, undisturbed):
    port = process.free_port()
    supervisor = rendezvous(toy, port)
    options = ("--nnodes", "1:2", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "job")
    (toy.folder / "gate").touch()
    agents = [toy.start(*options, workers=1) for _ in range(2)]
    process.wait_until(
        lambda: any(world["world_size"] == 2 for world in toy.events("world")), 150, "a world of both agents"
    )
    toy.wait_for_step(2)
    worlds = len(toy.events("world"))
    kill_and_wait(supervisor)
    (toy.folder / "gate").unlink()
    os.kill(toy.events("world")[-1]["pids"][1], signal.SIGKILL)
    for agent in agents:
        toy.finish(agent)
    assert len(toy.events("world")) > worlds
    assert toy.weights() == undisturbed.weights()


def test_without_a_store_the_address_is_named(toy):
    port = process.free_port()
    output = toy.train(
        "--nnodes", "2", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-conf", "is_host=0,read_timeout=1", code=1
    )
    assert f"error: 127.0.0.1:{port}: no rendezvous store answers" in output
    assert f"hint: start one there (emberline rendezvous --port {port})" in output
