"""What TensorBoard and MLflow are told is what the log says, over kills and later starts."""

import signal

import pytest

from emberline.errors import MissingTool
from emberline.train.tracking import require_trackers

BOTH = ("--set", "train.track=[tensorboard, mlflow]", "--set", "train.checkpoint_every_s=1000")


@pytest.fixture
def tracked(toy, monkeypatch):
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return toy


def boards(toy, name: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(toy.run / "tensorboard")).Reload()
    points = seen.Scalars(name)
    assert len({point.step for point in points}) == len(points)
    return {point.step: point.value for point in points}


def flows(toy, name: str) -> dict[int, float]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{toy.folder / 'runs' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    assert run.data.params["train.batch_size"] == "24"
    assert run.info.status == "FINISHED"
    return {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}


def test_a_kill_and_a_later_start_leave_each_step_once_in_both(tracked):
    (tracked.folder / "kill-1-13").touch()
    (tracked.folder / "gate").touch()
    launcher = tracked.start(*BOTH)
    tracked.wait_for_step(6)
    launcher.send_signal(signal.SIGTERM)
    (tracked.folder / "gate").unlink()
    tracked.finish(launcher, code=75)
    assert tracked.events("step")[-1]["step"] < 24
    tracked.train(*BOTH)
    expected = {event["step"]: event["loss"] for event in tracked.events("step")}
    assert len(expected) == 24
    assert boards(tracked, "train/loss") == pytest.approx(expected)
    assert flows(tracked, "train/loss") == pytest.approx(expected)
    (done,) = tracked.events("done")
    assert flows(tracked, "result/accuracy") == {24: done["accuracy"]}
    assert boards(tracked, "validation/accuracy").keys() == {4, 8, 12, 16, 20, 24}


def test_a_tracker_that_cannot_be_reached_stops_no_step(tracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    output = tracked.train("--set", "train.track=[mlflow]", "--set", "train.epochs=2")
    assert output.count("training goes on, and its numbers are sent later") == 1
    assert tracked.events("done")
    assert (tracked.run / "artifacts" / "trained").exists()


def test_a_tracker_that_is_not_installed_is_told_before_anything_starts():
    with pytest.raises(
        MissingTool, match=r"(?s)'no_such_board' is not installed.*pip install 'emberline\[no_such_board\]'"
    ):
        require_trackers(["no_such_board"])
