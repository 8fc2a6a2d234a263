"""Several agents with a rendezvous store of their own, of which one is killed."""

import signal
import sys

import psutil
import pytest

from emberline import process


def start_store(toy):
    port = process.free_port()
    store = toy.spawn([sys.executable, "-m", "emberline.cli", "rendezvous", "--port", str(port)])
    options = (
        "--nnodes",
        "1:2",
        "--rdzv-endpoint",
        f"127.0.0.1:{port}",
        "--rdzv-id",
        "job",
        "--rdzv-conf",
        "is_host=0",
    )
    return store, options


@pytest.mark.long
def test_a_killed_agent_takes_nobody_with_it_and_changes_no_bit(toy, undisturbed):
    store, options = start_store(toy)
    (toy.folder / "gate").touch()
    agents = [toy.start(*options, workers=1) for _ in range(2)]
    process.wait_until(
        lambda: any(world["world_size"] == 2 for world in toy.events("world")), 150, "a world of both agents"
    )
    toy.wait_for_step(2)
    agents[1].send_signal(signal.SIGKILL)
    (toy.folder / "gate").unlink()
    toy.finish(agents[0])
    assert toy.events("world")[-1]["world_size"] == 1
    assert toy.events("restart")[-1]["steps_lost"] == 0
    assert toy.losses() == undisturbed.losses()
    assert toy.weights() == undisturbed.weights()
    assert store.poll() is None


@pytest.mark.long
def test_an_agent_whose_worker_was_fenced_out_while_both_were_stopped_joins_again(toy):
    _, options = start_store(toy)
    options = (*options, "--set", "train.epochs=100000")
    first = psutil.Process(toy.start(*options, workers=1).pid)
    toy.wait_for_step(2)
    worker = psutil.Process(toy.events("world")[-1]["pids"][0])
    family = [first, *first.children(recursive=True)]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    toy.start(*options, workers=1)
    process.wait_until(lambda: toy.events("world")[-1]["generation"] > 1, 150, "a world without the stopped agent")
    for one in family[1:]:  # all but the agent, the server that its workers are forked from included
        one.send_signal(signal.SIGCONT)
    process.wait_until(lambda: not worker.is_running(), 60, "the end of the worker that was fenced out")
    first.send_signal(signal.SIGCONT)
    process.wait_until(lambda: toy.events("world")[-1]["world_size"] == 2, 150, "a world of both agents")


@pytest.mark.long
def test_a_node_that_comes_when_the_others_have_ended_is_told_so(toy):
    _, options = start_store(toy)
    toy.train(*options, workers=1)
    output = toy.train(*options, "--set", "run=another", workers=1, code=1)
    assert "this rendezvous was closed by nodes that have ended" in output
    assert "hint: start all nodes again, with another --rdzv-id" in output
