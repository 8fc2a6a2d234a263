"""A compression that was killed goes on; one that is asked for again is there at once."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from emberline import paper, process
from emberline.compress.chain import Done, folder_of, run_chain, tidy
from emberline.compress.job import open_job
from emberline.compress.plan import Step


def chain_of(run, cache, stages: int) -> list[Done]:
    """The first stages of int8, those that need no compiler."""
    job = open_job(run.recipe_path, (), run.runs)
    planned = job.plan("int8")
    return run_chain(
        "int8",
        steps=planned.steps[:stages],
        cache=cache,
        log=job.log,
        make_context=lambda: job.context(planned),
        first_state=job.first_state,
    )


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", flip_a_bit),
        ("model.safetensors", lambda path: os.truncate(path, 100)),
        ("model.safetensors", lambda path: path.unlink()),
        ("state.json", lambda path: path.write_text(path.read_text().replace('"accuracy": 0.', '"accuracy": 1.'))),
        ("state.json", lambda path: os.truncate(path, 100)),
    ],
    ids=["a bit", "cut off", "gone", "another accuracy", "half a description"],
)
def test_a_stage_that_was_altered_in_the_cache_is_done_again_and_told(trained_run, tmp_path, file, damage):
    first = chain_of(trained_run, tmp_path, 2)
    weights = first[1].folder / "model.safetensors"
    before = weights.read_bytes()
    damage(first[1].folder / file)
    again = chain_of(trained_run, tmp_path, 2)
    assert [one.cached for one in again] == [True, False]
    assert weights.read_bytes() == before
    told = f"int8: {first[1].folder / file} is not as it was written, so the stage is done again"
    assert told in trained_run.log_lines()
    assert [one.cached for one in chain_of(trained_run, tmp_path, 2)] == [True, True]


def test_tidying_keeps_all_that_a_run_is_made_of_and_the_newest_of_the_rest(tmp_path):
    steps = [Step("finetune", None, f"{number:020}") for number in range(50)]
    for step in steps:
        folder_of(tmp_path, step).mkdir()
    for number in range(50):
        (tmp_path / f"old-{number}").mkdir()
        os.utime(tmp_path / f"old-{number}", (number, number))
    tidy(tmp_path, needed=steps)
    assert all(folder_of(tmp_path, step).is_dir() for step in steps)
    assert sorted(path.name for path in tmp_path.glob("old-*")) == sorted(f"old-{number}" for number in range(10, 50))


@pytest.mark.long
def test_a_compression_killed_between_stages_repeats_none_that_was_done(trained_run, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(trained_run.runs / "small" / "artifacts" / "trained", runs / "small" / "artifacts" / "trained")
    command = [sys.executable, "-m", "emberline.cli", "compress", str(trained_run.recipe_path), "--runs", str(runs)]
    cache = runs / "small" / "artifacts" / ".cache"
    first = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        process.wait_until(lambda: any(cache.glob("finetune-*/state.json")), 250, "a state of the finetune stage")
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    before = {path: path.stat().st_ino for path in cache.glob("*/state.json")}
    assert not (runs / "small" / "artifacts" / "int8").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "int8: prune, batch_norm, finetune" in done.stderr
    assert {path: path.stat().st_ino for path in before} == before  # not one of them was written again
    paper.verify_paper(runs / "small" / "artifacts" / "int8")
    begin = time.process_time(), time.monotonic()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.monotonic() - begin[1] < 20  # a machine under load; the benchmark holds it to 5 s
    assert "quantize, export unchanged, reused" in again.stderr
