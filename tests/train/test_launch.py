"""What the launcher promises about processes, recipes and failures."""

import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from emberline import process
from emberline.errors import InvalidSetting
from emberline.train import launch
from emberline.train.notice import Interrupted, Notice


def test_killing_the_launcher_leaves_no_process_and_the_run_goes_on_later(toy, undisturbed):
    (toy.folder / "gate").touch()
    launcher = toy.start(workers=2)
    toy.wait_for_step(4)
    family = psutil.Process(launcher.pid).children(recursive=True)
    assert len(family) >= 4  # store with its keeper, fork server, two workers
    launcher.send_signal(signal.SIGKILL)
    process.wait_until(lambda: not [one for one in family if alive(one)], 10, "the end of all that it started")
    assert "resource_tracker" not in launcher.communicate(timeout=30)[0]
    steps = toy.events("step")[-1]["step"]
    refused = toy.train("--set", "train.epochs=7", code=1)
    assert "this run was started with another recipe (train.epochs: 6 → 7)" in refused
    assert "hint: start another run (--set run=toy-2)" in refused
    (toy.folder / "gate").unlink()
    toy.train(workers=1)
    world = toy.events("world")[-1]
    assert (world["source"], world["step"] - steps) in {("snapshot", 0), ("snapshot", 1)}
    assert toy.events("restart") == []  # a later start is no restart
    assert toy.weights() == undisturbed.weights()
    assert toy.snapshots() == []


def test_a_nan_loss_is_named_with_its_rank_and_step_and_not_tried_again(toy):
    output = toy.train("--set", "train.loss=toy:nan_loss", code=1)
    assert "error: rank 1, step 2, shard 3: the loss is nan; a finite number is required" in output
    assert "hint: lower train.optimizer.learning_rate" in output
    assert len(toy.events("world")) == 1
    assert "Traceback" not in output
    assert "Terminating process" not in output  # torch's words about what the agent does on purpose
    assert not (toy.run / "manifest.json").exists()


def test_after_a_failure_before_any_checkpoint_the_mended_recipe_starts_anew(toy):
    seldom = ("--set", "train.checkpoint_every_s=1000", "--set", "train.epochs=1")
    output = toy.train(*seldom, "--set", "model.arguments={outputs: 2}", workers=1, code=1)
    assert "error: rank 0, step 0: the model gives 2 outputs for 3 labels" in output
    assert "hint: give the model as many outputs as the recipe has labels" in output
    output = toy.train(*seldom)
    assert "nothing to go on from; starts anew with another recipe (model.arguments.outputs: 2 → None)" in output
    assert toy.events("done")[-1]["steps"] == 4


@pytest.mark.parametrize("library", ["_pydantic_core", "libtorch_cpu"])
def test_a_notice_is_acted_upon_while_the_launcher_still_loads_its_libraries(toy, library):
    launcher = toy.start()
    maps = Path("/proc", str(launcher.pid), "maps")
    process.wait_until(lambda: library in maps.read_text(), 60, f"a launcher that loads {library}", every_s=0.005)
    launcher.send_signal(signal.SIGTERM)
    assert "stopped" in toy.finish(launcher, code=75)
    assert toy.events("done") == []


def test_a_notice_that_somebody_swallows_is_kept():
    notice = Notice()
    with suppress(Interrupted):
        notice._take(signal.SIGTERM, None)
    with pytest.raises(Interrupted):
        notice.check()


def test_a_folder_that_cannot_be_written_is_told_with_the_option_that_names_another(toy):
    output = toy.train("--runs", "/sys/runs", code=1)  # where nobody may make a folder, the superuser neither
    assert "error: /sys/runs/toy: the run's folder cannot be written: " in output
    assert "hint: --runs names another folder" in output


def test_nothing_is_left_in_the_folder_for_temporary_files(toy, monkeypatch):
    with tempfile.TemporaryDirectory() as left:  # of a short path: sockets are made in it
        monkeypatch.setenv("TMPDIR", left)
        toy.train("--set", "train.epochs=1")
        assert [one.name for one in Path(left).iterdir() if not one.name.startswith("torchinductor_")] == []  # a cache


def test_a_folder_for_temporary_files_whose_path_is_too_long_for_sockets_is_told(toy, tmp_path, monkeypatch):
    (folder := tmp_path / ("long" * 30)).mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    output = toy.train(code=1)
    assert f"{folder}: no socket can be made among temporary files: AF_UNIX path too long" in output
    assert "hint: set TMPDIR to a folder with a shorter path" in output


def test_more_workers_than_virtual_shards_are_refused(toy):
    output = toy.train(workers=7, code=1)
    assert "workers is 7; at most train.virtual_shards, 6, is required" in output
    assert not toy.run.exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--nproc-per-node", "zero"), ("--nproc-per-node", "0"), ("--nnodes", "3:1")]
)
def test_options_that_cannot_be_used_are_refused_also_for_a_run_that_is_done(toy, option, value, monkeypatch):
    monkeypatch.setattr(launch, "finished_manifest", lambda *_: pytest.fail("it was looked for first"))
    options = {"--nproc-per-node": "nproc_per_node", "--nnodes": "nnodes"}
    with pytest.raises(InvalidSetting, match=f"train: {option} is '{value}'"):
        launch.launch(launch.Launch(toy.folder / "toy.yaml", runs=toy.folder, **{options[option]: value}), Notice())


def alive(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
