"""Checkpoints and snapshots: whole or refused, never half and never somebody else's."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emberline.train import fence, snapshot
from emberline.train.checkpoint import Checkpoints
from emberline.train.litter import sweep_semaphores


@pytest.fixture
def tensors():
    return {
        "model/weight": torch.arange(1000.0).reshape(10, 100),
        "model/count": torch.tensor(3),
        "model/none": torch.empty(0),
    }


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, digest="abc", keep=3)


def save(checkpoints: Checkpoints, tensors: dict[str, torch.Tensor], *steps: int) -> None:
    generation = checkpoints.claim_generation()
    for step in steps:
        checkpoints.save(step, {**tensors, "step": torch.tensor(step)}, seed=0, generation=generation)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in Path(checkpoints.location).iterdir())


def test_the_newest_checkpoint_is_loaded_and_old_ones_are_let_go(checkpoints, tensors):
    save(checkpoints, tensors, 10, 20, 30, 40)
    assert names(checkpoints) == ["step-000020", "step-000030", "step-000040"]
    loaded = checkpoints.load_newest([])
    assert loaded.step == 40
    assert torch.equal(loaded.tensors["model/weight"], tensors["model/weight"])


def test_every_bit_flip_truncation_missing_and_foreign_file_is_caught(checkpoints, tensors):
    save(checkpoints, tensors, 10, 20)
    newest = Path(checkpoints.location, "step-000020")
    chance = random.Random(0)
    files = {path: path.read_bytes() for path in newest.iterdir()}
    damages = [(path, "flip") for path in files for _ in range(40)]
    damages += [(path, damage) for path in files for damage in ("cut", "gone")] + [(newest / "foreign", "add")]
    for path, damage in damages:
        content = bytearray(files.get(path, b""))
        if damage == "flip":
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(b"x" if damage == "add" else content[:-2] if damage == "cut" else content)
        skipped = []
        loaded = checkpoints.load_newest(skipped)
        assert loaded.step == 10
        assert [one.name for one in skipped] == ["step-000020"]
        for one, whole in files.items():
            one.write_bytes(whole)
        (newest / "foreign").unlink(missing_ok=True)


def test_a_whole_checkpoint_of_the_same_step_stays_in_its_place_and_a_damaged_one_is_replaced(checkpoints, tensors):
    save(checkpoints, tensors, 10)
    state = Path(checkpoints.location, "step-000010", "state.safetensors")
    first = state.stat().st_ino
    save(checkpoints, tensors, 10)
    assert state.stat().st_ino == first
    state.write_bytes(state.read_bytes()[:-1])
    save(checkpoints, tensors, 10)
    assert checkpoints.load_newest([]).step == 10


def test_a_checkpoint_of_another_recipe_is_not_loaded(checkpoints, tensors, tmp_path):
    save(checkpoints, tensors, 10)
    skipped = []
    assert Checkpoints(tmp_path, digest="other", keep=3).load_newest(skipped) is None
    assert skipped[0].why == "it belongs to another recipe"


def test_an_overtaken_world_cannot_commit(checkpoints, tensors, tmp_path):
    old = fence.claim_generation(tmp_path)
    save(checkpoints, tensors, 10)  # a newer world
    with pytest.raises(fence.Fenced, match="generation 1 was overtaken by generation 2"):
        checkpoints.save(20, tensors, seed=0, generation=old)
    assert names(checkpoints) == ["step-000010"]


WRITER = """
import sys, torch
from pathlib import Path
from emberline.train.snapshot import SnapshotWriter
tensors = {"a": torch.zeros(200_000)}
writer = SnapshotWriter(Path(sys.argv[1]), tensors, Path("."))
step = 0
while True:
    step += 1
    tensors["a"].fill_(step)
    writer.write(step, tensors)
    if step == 3:
        print("ready", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_snapshot(tmp_path):
    path = tmp_path / "emberline-killed-000001"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"ready\n"
    for _ in range(20):  # stopped, read, and let go on: twenty moments for the price of one process
        writer.send_signal(signal.SIGSTOP)
        check(tmp_path)
        writer.send_signal(signal.SIGCONT)
    writer.kill()
    writer.wait()
    writer.stdout.close()
    check(tmp_path)


def check(folder):
    found, notes = snapshot.read_newest("killed", folder)
    assert notes == []
    assert (found.tensors["a"] == found.step).all()


def test_a_damaged_snapshot_is_refused_and_the_older_generations_is_used(tmp_path, tensors):
    for generation, step in ((1, 5), (2, 6)):
        writer = snapshot.SnapshotWriter(tmp_path / f"emberline-x-{generation:06d}", tensors, tmp_path)
        writer.write(step, tensors)
    path = tmp_path / "emberline-x-000002"
    content = bytearray(path.read_bytes())
    content[4096 + 300] ^= 1
    path.write_bytes(content)
    found, notes = snapshot.read_newest("x", tmp_path)
    assert (found.step, notes) == (5, ["emberline-x-000002: its hash does not match"])
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)


def test_without_room_in_shared_memory_snapshots_go_to_the_runs_folder(tmp_path):
    assert snapshot.snapshot_path("x", 1, 1 << 60, tmp_path).parent == tmp_path
    assert snapshot.snapshot_path("x", 1, 1 << 10, tmp_path).parent != tmp_path


def test_shared_memory_of_a_run_whose_folder_is_gone_is_freed(tmp_path, tensors):
    paths = {}
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
        paths[name] = snapshot.snapshot_path(f"test{os.getpid()}{name}", 1, 1 << 10, tmp_path)
        snapshot.SnapshotWriter(paths[name], tensors, tmp_path / name).write(1, tensors)
    (tmp_path / "gone").rmdir()
    snapshot.sweep()
    assert not paths["gone"].exists()
    assert paths["kept"].exists()
    paths["kept"].unlink()


def test_old_semaphores_that_nobody_has_open_are_removed_and_others_stay():
    held = multiprocessing.get_context("spawn").Lock()
    names = [f"/dev/shm/sem.{held._semlock.name.removeprefix('/')}", f"/dev/shm/sem.mp-old{os.getpid()}"]
    paths = [Path(name) for name in (*names, f"/dev/shm/sem.mp-new{os.getpid()}")]
    for path in paths[1:]:
        path.write_bytes(b"x" * 32)
    for path in paths[:2]:
        os.utime(path, (0, 0))
    removed = sweep_semaphores()
    assert [str(path) in removed for path in paths] == [False, True, False]
    assert [path.exists() for path in paths] == [True, False, True]
    paths[2].unlink()
