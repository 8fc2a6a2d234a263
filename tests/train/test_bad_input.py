"""What cannot be trained on is named with rank, step and remedy, and costs no saved state."""

import os
import resource
import subprocess
import sys

import pytest


def codes(workers) -> set[int | None]:
    for one in workers:
        one.join(60)
    return {one.exitcode for one in workers}


@pytest.mark.parametrize("raised", ["OSError", "RuntimeError"])  # of PIL, and of torch or any library of a user's
def test_a_row_that_cannot_be_read_is_named_with_rank_step_and_file_and_the_state_before_it_is_kept(toy, raised):
    settings = ("data.source=toy:waiting_data",)
    with toy.world(1, *settings) as (worker,):
        toy.wait_for_step(3)
        worker.terminate()
        worker.join()
    kept = toy.events("checkpoint")[-1]
    (toy.folder / "spoilt").write_text(raised)
    with toy.world(2, *settings) as workers:
        assert 1 in codes(workers)
    told = toy.failure()
    assert "rank " in told
    assert "step " in told
    assert "row 40" in told
    assert f"cannot be read: {raised}: image file is truncated" in told
    assert "hint: " in told
    (toy.folder / "spoilt").unlink()
    toy.train_world(2, *settings)
    assert toy.events("world")[-1]["step"] >= kept["step"]


def test_too_little_memory_is_told_with_its_remedy(toy):
    with toy.world(1, "model.factory=toy:huge_net") as workers:
        assert codes(workers) == {1}
    assert "rank 0, step 0: there is not enough memory for a shard" in toy.failure()
    assert "hint: lower train.batch_size, or raise train.virtual_shards" in toy.failure()


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(toy):
    toy.train_world(1, "train.epochs=1", "run=first")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = toy.folder / "runs" / "first" / "checkpoints"
    kept = sorted(path.name for path in checkpoints.iterdir())
    full = toy.folder / "full.py"
    full.write_text(
        "import resource\nimport toy\n"
        "def data():\n    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n    return toy.data()\n"
    )
    assert limit == resource.getrlimit(resource.RLIMIT_FSIZE)
    with toy.world(1, "data.source=full:data", "train.snapshot_every=1000") as workers:
        assert codes(workers) == {1}
    assert "File too large" in toy.failure()
    assert "hint: free some space or repair" in toy.failure()
    assert sorted(path.name for path in checkpoints.iterdir()) == kept


def test_a_folder_that_cannot_be_written_is_told_before_the_first_step(toy):
    (toy.folder / "runs").write_text("a file, where a folder is wanted")
    with toy.world(1) as workers:
        assert codes(workers) == {1}
    assert "rank 0: runs: cannot be written: " in toy.failure()
    assert "hint: free some space or repair" in toy.failure()


@pytest.mark.long
def test_stock_torchrun_does_not_try_a_nan_again(toy):
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=9",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "emberline.train.worker", "toy.yaml",
        "--set", "train.loss=toy:nan_loss",
    ]  # fmt: skip
    ended = subprocess.run(
        torchrun, cwd=toy.folder, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )  # fmt: skip
    assert ended.returncode != 0
    assert "error: rank 1, step 2, shard 3: the loss is nan; a finite number is required" in ended.stderr
    assert "another try would fail alike; torchrun is told to end" in ended.stderr
    assert "this launcher does not watch for workers that hang" in ended.stderr
    assert len(toy.events("world")) == 1
