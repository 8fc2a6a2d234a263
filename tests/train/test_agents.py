"""Several agents with a rendezvous store of their own, of which one is killed."""

import signal
import sys

import pytest

from emberline import process


@pytest.mark.long
def test_a_killed_agent_takes_nobody_with_it_and_changes_no_bit(toy, undisturbed):
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
