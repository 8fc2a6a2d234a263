"""Of two worlds that both think they train a run, the older one commits nothing."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from emberline.train import fence
from emberline.train.checkpoint import Checkpoints

TENSORS = {"model/weight": torch.arange(100.0)}


def checkpoints(folder, location=None):
    return Checkpoints(folder, digest="abc", keep=3, location=location)


def committed(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


def test_a_world_that_was_overtaken_while_it_wrote_cannot_commit(tmp_path):
    paper = tmp_path / "written"
    paper.mkdir()
    old = fence.claim_generation(tmp_path)
    new = fence.claim_generation(tmp_path)
    with pytest.raises(fence.Fenced, match=f"generation {old} was overtaken by generation {new}"):
        fence.commit(tmp_path, old, paper, tmp_path / "there")
    assert paper.is_dir()
    fence.commit(tmp_path, new, paper, tmp_path / "there")
    assert (tmp_path / "there").is_dir()


def test_the_file_system_itself_refuses_a_commit_that_had_already_been_allowed(tmp_path, monkeypatch):
    old = fence.claim_generation(tmp_path)
    (tmp_path / "written").mkdir()
    allowed = fence.check

    def overtaken_right_after(folder, generation):
        allowed(folder, generation)
        fence.claim_generation(folder)

    monkeypatch.setattr(fence, "check", overtaken_right_after)
    with pytest.raises(fence.Fenced, match="generation 1 was overtaken by generation 2"):
        fence.commit(tmp_path, old, tmp_path / "written", tmp_path / "there")
    assert not (tmp_path / "there").exists()


CLAIM = (
    "import sys; from pathlib import Path; from emberline.train.fence import claim_generation as claim; "
    "print([claim(Path(sys.argv[1])) for _ in range(40)])"
)


def test_generations_claimed_by_several_processes_at_once_are_all_different(tmp_path):
    claims = [
        subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    numbers = [number for one in claims for number in eval(one.communicate(timeout=100)[0])]
    assert sorted(numbers) == list(range(1, 121))
    assert [path.parent.name for path in (tmp_path / "generations").glob("*/gate")] == ["000120"]


def test_a_number_whose_world_was_overtaken_is_not_taken_again_by_a_slow_one(tmp_path, monkeypatch):
    assert fence.claim_generation(tmp_path) == 1
    newest = fence.newest_generation

    def overtaken_right_after(folder):
        monkeypatch.setattr(fence, "newest_generation", newest)
        seen = newest(folder)
        assert [fence.claim_generation(folder) for _ in range(2)] == [2, 3]
        return seen

    monkeypatch.setattr(fence, "newest_generation", overtaken_right_after)
    assert fence.claim_generation(tmp_path) == 4
    assert [path.parent.name for path in (tmp_path / "generations").glob("*/gate")] == ["000004"]


WRITER = """
import sys, torch
from pathlib import Path
from emberline.train.checkpoint import Checkpoints
one = Checkpoints(Path(sys.argv[1]), digest="abc", keep=3)
generation = one.claim_generation()
step = 0
while True:
    step += 1
    one.save(step, {"model/weight": torch.full((100,), float(step))}, seed=0, generation=generation)
    if step == 2:
        print("writes", flush=True)
"""


def test_a_writer_stopped_in_the_middle_of_a_commit_holds_nobody_up_and_commits_nothing_later(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout.readline() == "writes\n"
        writer.send_signal(signal.SIGSTOP)
        new = checkpoints(tmp_path)
        generation = new.claim_generation()
        new.save(1_000, TENSORS, seed=0, generation=generation)
        before = committed(tmp_path)
        writer.send_signal(signal.SIGCONT)
        _, errors = writer.communicate(timeout=60)
    finally:
        writer.kill()
        writer.wait()
    assert "generation 1 was overtaken by generation 2" in errors
    assert committed(tmp_path) == before
    assert new.load_newest([]).step == 1_000


def test_a_number_kept_by_an_earlier_version_is_counted_on_from(tmp_path):
    (tmp_path / "generation").write_text("7")
    assert fence.claim_generation(tmp_path) == 8


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return f"file://{tmp_path}/bucket" if request.param == "file" else f"memory://{os.getpid()}-{tmp_path.name}"


def test_checkpoints_in_an_object_store_are_kept_verified_and_let_go_alike(tmp_path, store):
    one = checkpoints(tmp_path / "run", store)
    generation = one.claim_generation()
    for step in (10, 20, 30, 40):
        place = one.save(step, {**TENSORS, "step": torch.tensor(step)}, seed=0, generation=generation)
    assert place == f"{store}/checkpoints/step-000040.g000001"
    loaded = checkpoints(tmp_path / "elsewhere", store).load_newest([])
    assert (loaded.step, loaded.tensors["step"]) == (40, 40)
    assert not (tmp_path / "run" / "checkpoints").exists()
    again = checkpoints(tmp_path / "elsewhere", store)
    assert again.claim_generation() == 2
    with pytest.raises(fence.Fenced, match="generation 1 was overtaken by generation 2"):
        one.save(50, TENSORS, seed=0, generation=generation)
    assert again.newest_step() == 40


def test_what_an_overtaken_world_still_wrote_to_an_object_store_is_not_read(tmp_path, store, monkeypatch):
    old = checkpoints(tmp_path / "a", store)
    generation = old.claim_generation()
    old.save(10, TENSORS, seed=0, generation=generation)
    new = checkpoints(tmp_path / "b", store)
    new.claim_generation()
    with monkeypatch.context() as unfenced:  # as if it was stopped after it had looked for the last time
        unfenced.setattr("emberline.train.shelf.ObjectShelf.check", lambda *_: None)
        old.save(99, TENSORS, seed=0, generation=generation)
    skipped = []
    assert new.load_newest(skipped).step == 10
    assert [(one.name, one.why) for one in skipped] == [
        ("step-000099.g000001", "generation 1 wrote it after it was overtaken by generation 2")
    ]


def test_a_damaged_object_is_caught_and_the_older_checkpoint_is_loaded(tmp_path):
    store = f"file://{tmp_path}/bucket"
    one = checkpoints(tmp_path / "run", store)
    generation = one.claim_generation()
    for step in (10, 20):
        one.save(step, TENSORS, seed=0, generation=generation)
    state = tmp_path / "bucket" / "checkpoints" / "step-000020.g000001" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-5] ^= 4
    state.write_bytes(content)
    skipped = []
    assert one.load_newest(skipped).step == 10
    assert "content is xxh3" in skipped[0].why
