"""The result does not depend on who computed it."""

import re
import signal


def test_three_workers_of_which_one_is_killed_give_the_bits_of_one_worker(toy, undisturbed):
    (toy.folder / "kill-1-25").touch()
    output = toy.train(workers=3)
    assert not (toy.folder / "kill-1-25").exists(), "nobody was killed"
    assert "ended: killed by SIGKILL" in output
    (restart,) = toy.events("restart")
    assert restart["steps_lost"] == 0
    assert restart["source"] == "snapshot"
    assert [world["generation"] for world in toy.events("world")] == [1, 2]
    assert toy.losses() == undisturbed.losses()
    assert toy.weights() == undisturbed.weights()


def test_a_worker_that_dies_between_snapshot_and_log_line_leaves_no_gap_in_the_losses(toy, undisturbed):
    (toy.folder / "kill-0-8").touch()
    with toy.world(1) as workers:
        for worker in workers:
            worker.join(150)
    log = toy.run / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    last = max(index for index, line in enumerate(lines) if b'"event":"step"' in line)
    log.write_bytes(b"".join(lines[:last]))
    toy.train_world(1)
    assert toy.losses() == undisturbed.losses()


def test_the_printed_torchrun_line_trains_the_same_run(toy, undisturbed):
    output = undisturbed.train(workers=2)  # finished: reused, and nothing is started
    assert "trained before" in output
    launcher = toy.start(workers=2)
    line = next(line for line in launcher.stdout if line.startswith("the same by torchrun: "))
    launcher.send_signal(signal.SIGTERM)
    stopped, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 75, stopped
    assert "Traceback" not in stopped
    command = line.removeprefix("the same by torchrun: ").strip()
    assert re.match(r"TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes=1:1 --nproc-per-node=2 ", command)
    toy.finish(toy.spawn(command))
    assert toy.weights() == undisturbed.weights()
    assert toy.losses() == undisturbed.losses()


def test_sigterm_saves_and_a_corrupted_checkpoint_is_skipped_by_name(toy, undisturbed):
    (toy.folder / "gate").touch()
    launcher = toy.start(workers=2)
    toy.wait_for_step(4)
    launcher.send_signal(signal.SIGTERM)
    (toy.folder / "gate").unlink()
    toy.finish(launcher, code=75)
    saved = toy.events("checkpoint")[-1]
    assert [event["step"] for event in toy.events("preempted")] == [saved["step"]]
    assert saved["step"] == toy.events("step")[-1]["step"] < 24
    newest = toy.run / "checkpoints" / f"step-{saved['step']:06d}"
    for snapshot in toy.snapshots():
        snapshot.unlink()  # as on another machine
    state = newest / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-3] ^= 4
    state.write_bytes(content)
    output = toy.train(workers=1)
    assert f"skipped {newest.name}: " in output
    assert toy.events("world")[-1]["source"] == "checkpoint"
    assert toy.weights() == undisturbed.weights()
    assert toy.losses() == undisturbed.losses()
