"""Two launchers and one run."""

import signal

import pytest

from emberline import process
from emberline.errors import EmberlineError
from emberline.train.occupancy import occupy


def test_a_run_is_held_by_one_rendezvous_at_a_time(tmp_path):
    run = tmp_path / "runs" / "toy"
    with occupy(run, "job", "here:1"):
        with occupy(run, "job", "here:1"), occupy(run, "job"):
            pass  # other nodes of the same rendezvous
        for other in (("another", "here:1"), ("job", "there:1")):
            with pytest.raises(EmberlineError, match="another launcher trains this run: pid"), occupy(run, *other):
                pass
    with occupy(run, "another", "here:1"):
        pass
    assert not run.exists()


def test_a_second_launcher_is_refused_before_it_starts_anything(toy, undisturbed):
    (toy.folder / "gate").touch()
    first = toy.start(workers=1)
    process.wait_until(lambda: toy.events("world"), 100, "the first launcher's world")
    output = toy.train(workers=1, code=1)
    assert f"another launcher trains this run: pid {first.pid} on " in output
    assert "hint: wait for it or stop it; to join it as another node" in output
    (toy.folder / "gate").unlink()
    toy.finish(first)
    assert len(toy.events("world")) == 1
    assert toy.weights() == undisturbed.weights()


@pytest.mark.long
def test_plain_torchrun_trains_the_same_run_and_takes_turns_with_our_launcher(toy, undisturbed):
    torchrun = (
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes=1:4 --nproc-per-node=2 --rdzv-backend=c10d "
        "--rdzv-endpoint=localhost:0 --rdzv-id=job --max-restarts=3 -m emberline.train.worker toy.yaml --runs runs"
    )
    (toy.folder / "gate").touch()
    first = toy.spawn(f"exec env {torchrun}")
    toy.wait_for_step(3)
    assert "another launcher trains this run" in toy.train(workers=1, code=1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = toy.start(workers=2)
    process.wait_until(lambda: len(toy.events("world")) == 2, 150, "our launcher's world")
    toy.wait_for_step(toy.events("world")[-1]["step"] + 1)
    second.send_signal(signal.SIGTERM)
    toy.finish(second, code=75)
    (toy.folder / "gate").unlink()
    toy.finish(toy.spawn(f"exec env {torchrun}"))
    assert [world["source"] for world in toy.events("world")][1] == "snapshot"
    assert toy.losses() == undisturbed.losses()
    assert toy.weights() == undisturbed.weights()
