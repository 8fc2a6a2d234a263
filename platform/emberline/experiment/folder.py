"""Experiments as files of a folder, each with its status beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from emberline import storage
from emberline.errors import EmberlineError, InvalidSetting, MissingFile
from emberline.experiment.document import parse_experiment
from emberline.experiment.experiment import Experiment
from emberline.experiment.status import Status
from emberline.recipe import overlay, parse_model, read_yaml

_STATUS = ".status.json"


def load_experiment(path: Path, settings: tuple[str, ...] = ()) -> Experiment:
    """Reads `<name>.yaml` and, where it is there, the status beside it."""
    _require(path)
    experiment = parse_experiment(overlay(read_yaml(path), settings), path)
    status = status_path(path.parent, experiment.name)
    if status.is_file():
        return experiment.under(_load_status(status))
    _require(path)  # both were taken away meanwhile: it must not look like one that has yet to begin
    return experiment


def _require(path: Path) -> None:
    if not path.exists():
        raise MissingFile(path, "the experiment", hint="emberline ships recipes/digits.experiment.yaml")


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        experiments: by file.
        wrong: why other files cannot be used.
        unclaimed: experiments that have begun and that no usable file tells of, by the status that does: their file is
            `gone`, or among the wrong ones.
    """

    experiments: dict[Path, Experiment]
    wrong: dict[Path, EmberlineError]
    unclaimed: dict[Path, Experiment]

    @property
    def all(self) -> list[Experiment]:
        """All that can be told of, whatever became of their files."""
        return [*self.experiments.values(), *self.unclaimed.values()]


def read_folder(folder: Path) -> Found:
    """All experiments of a folder; a file that is wrong does not keep the others from being read."""
    read: dict[Path, Experiment] = {}
    wrong: dict[Path, EmberlineError] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            read[path] = load_experiment(path)
        except EmberlineError as error:
            wrong[path] = error
        except OSError as error:
            wrong[path] = EmberlineError(f"cannot be read: {error.strerror}", place=path)
    wrong |= _namesakes(read)
    owed = {read[path].name if path in read else _declared_name(path) for path in wrong}
    usable = {path: experiment for path, experiment in read.items() if path not in wrong}
    claimed = {experiment.name for experiment in usable.values()}
    unclaimed: dict[Path, Experiment] = {}
    for path in sorted(folder.glob(f"*{_STATUS}")):
        name = path.name.removesuffix(_STATUS)
        if name in claimed:
            continue
        try:
            status = _load_status(path)
        except EmberlineError as error:
            if name not in owed:  # else its file is named already
                wrong[path] = error
            continue
        except FileNotFoundError:  # it went between the listing and now
            continue
        if status.spec is not None:
            gone = name not in owed and None not in owed
            unclaimed[path] = Experiment(name=name, spec=status.spec, status=status, gone=gone)
    return Found(usable, wrong, unclaimed)


def _namesakes(read: Mapping[Path, Experiment]) -> dict[Path, EmberlineError]:
    """What is wrong with files that declare one name: nobody knows which of them is meant."""
    wrong: dict[Path, EmberlineError] = {}
    for path, experiment in read.items():
        others = [str(other) for other, one in read.items() if one.name == experiment.name and other != path]
        if others:
            required = f"a name that no other file declares, and {', '.join(others)} does"
            hint = "two experiments need two names; take the file away that is a copy"
            wrong[path] = InvalidSetting(path, "metadata.name", experiment.name, required, hint=hint)
    return wrong


def _declared_name(path: Path) -> str | None:
    """The name in a file that is wrong elsewhere; None where nobody can tell."""
    try:
        name = read_yaml(path)["metadata"]["name"]
    except (EmberlineError, OSError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _load_status(path: Path) -> Status:
    try:
        raw = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InvalidSetting(path, "the file", "no JSON", "a status as rollout writes it") from error
    return parse_model(Status, raw, path)


def load_experiments(folder: Path) -> tuple[Experiment, ...]:
    """All experiments of a folder, by name."""
    found = [load_experiment(path) for path in sorted(folder.glob("*.yaml"))]
    return tuple(sorted(found, key=lambda experiment: experiment.name))


def status_path(folder: Path, name: str) -> Path:
    return folder / f"{name}{_STATUS}"


def write_status(folder: Path, name: str, status: Status) -> None:
    """Atomically replaces the status file; for rollout alone."""
    storage.write_bytes(status_path(folder, name), orjson.dumps(status.model_dump(), option=orjson.OPT_INDENT_2))
