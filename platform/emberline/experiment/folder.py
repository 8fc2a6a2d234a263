"""Experiments as files of a folder, each with its status beside it."""

from pathlib import Path

import orjson

from emberline import storage
from emberline.errors import InvalidSetting, MissingFile
from emberline.experiment.document import parse_experiment
from emberline.experiment.experiment import Experiment
from emberline.experiment.status import Status
from emberline.recipe import overlay, parse_model, read_yaml


def load_experiment(path: Path, settings: tuple[str, ...] = ()) -> Experiment:
    """Reads `<name>.yaml` and, where it is there, the status beside it."""
    if not path.exists():
        raise MissingFile(path, "the experiment", hint="emberline ships recipes/digits.experiment.yaml")
    experiment = parse_experiment(overlay(read_yaml(path), settings), path)
    status = status_path(path.parent, experiment.name)
    if not status.is_file():
        return experiment
    try:
        raw = orjson.loads(status.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InvalidSetting(status, "the file", "no JSON", "a status as rollout writes it") from error
    return experiment.model_copy(update={"status": parse_model(Status, raw, status)})


def load_experiments(folder: Path) -> tuple[Experiment, ...]:
    """All experiments of a folder, by name."""
    found = [load_experiment(path) for path in sorted(folder.glob("*.yaml"))]
    return tuple(sorted(found, key=lambda experiment: experiment.name))


def status_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.status.json"


def write_status(folder: Path, name: str, status: Status) -> None:
    """Atomically replaces the status file; for rollout alone."""
    storage.write_bytes(status_path(folder, name), orjson.dumps(status.model_dump(), option=orjson.OPT_INDENT_2))
