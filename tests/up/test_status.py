"""`emberline status` in words that people read."""

import orjson
import psutil
import yaml

from emberline.experiment import Status, Window, read_folder, write_status
from emberline.rollout.lock import only_one
from emberline.up.status import status_lines

EXPERIMENT = {
    "apiVersion": "emberline.dev/v1",
    "kind": "Experiment",
    "metadata": {"name": "trial"},
    "spec": {
        "model": "digits",
        "variants": [{"name": "int8", "version": "1.1"}, {"name": "fp32", "version": "1.0", "control": True}],
        "primary": {"metric": "correct"},
        "ramp": [{"weight": 1000}, {"weight": 5000}],
    },
}


def told(state) -> list[str]:
    folder = state / "experiments"
    return status_lines(state, folder, read_folder(folder))


def place(folder, **status) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trial.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    write_status(folder, "trial", Status(**status))


def test_steps_are_counted_from_one_and_weights_are_those_in_force(tmp_path):
    folder = tmp_path / "experiments"
    place(folder, phase="Ramping", step=1, weights={"int8": 5000, "fp32": 5000})
    assert told(tmp_path)[-1] == "experiment trial: Ramping, step 2 of 2: int8 50 %, fp32 50 %"
    judged = Window(config_version="x", step=1, since=1.0)
    place(folder, phase="Shipped", step=1, weights={"int8": 10_000, "fp32": 0}, judged=judged)
    assert told(tmp_path)[-1] == "experiment trial: Shipped after step 2 of 2: int8 100 %, fp32 0 %"
    place(folder)
    assert told(tmp_path)[-1] == "experiment trial: Pending: int8 0 %, fp32 100 %"


def test_rollout_is_there_while_it_holds_the_folder_and_models_are_told_in_words(tmp_path):
    pid = psutil.Process().pid
    (tmp_path / "serve.json").write_bytes(orjson.dumps({"pid": pid, "models": {"digits": ["1.0", "1.1"]}}))
    with only_one(tmp_path / "experiments"):
        assert f"rollout: pid {pid}" in told(tmp_path)
    lines = told(tmp_path)
    assert "rollout: down" in lines
    assert f"serve: pid {pid}  models digits 1.0, 1.1" in lines


def test_of_an_ended_experiment_whose_file_is_gone_it_is_not_said_that_it_goes_on(tmp_path):
    folder = tmp_path / "experiments"
    place(folder)
    begun = read_folder(folder).all[0]
    status = {"spec": begun.spec, "spec_digest": begun.spec_digest, "weights": {"int8": 0, "fp32": 10_000}}
    place(folder, phase="Ramping", **status)
    (folder / "trial.yaml").unlink()
    assert "file was taken away while it ran" in told(tmp_path)[-1]
    place(folder, phase="RolledBack", **status)
    (folder / "trial.yaml").unlink()
    assert told(tmp_path)[-1] == "experiment trial: RolledBack: int8 0 %, fp32 100 %"
