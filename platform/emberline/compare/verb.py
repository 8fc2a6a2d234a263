"""What `emberline compare` does: assess, then leave a report for each experiment."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from emberline.compare.assess import assess
from emberline.compare.assessment import Assessment
from emberline.compare.history import read_looks
from emberline.compare.observe import observe
from emberline.compare.report import write_report
from emberline.errors import InvalidSetting, MissingFile
from emberline.experiment import Experiment, load_experiment, status_path
from emberline.recipe import read_yaml


def compare_experiments(
    paths: Sequence[Path], data: Path, report: Path, experiments: Path
) -> Iterator[tuple[Assessment, Path]]:
    """Each experiment's assessment, with the page that was written for it.

    Raises:
        MissingFile: no experiment was named and none runs, or the data's folder is not there.
    """
    if not data.is_dir():
        hint = "`emberline up` and `make demo` make it as they run; name another by --data"
        raise MissingFile(data, "the folder of exposures and outcomes", hint=hint)
    found = tuple(paths) or tuple(sorted(experiments.glob("*.yaml")))
    if not found:
        hint = "`emberline up` starts the recipe's experiment; or name an Experiment file"
        raise MissingFile(experiments / "*.yaml", "an experiment", hint=hint)
    for path in found:
        experiment, folder = find_experiment(path, experiments)
        now = time.time()
        look = assess(experiment, observe(experiment, data, until=now), now)
        looks = tuple(past for past in read_looks(folder, experiment.name) if past.at <= now)
        yield look, write_report(report / experiment.name, experiment, look, looks)


def find_experiment(path: Path, experiments: Path) -> tuple[Experiment, Path]:
    """An experiment with its status, and the folder that status is in: beside the file, else where rollout writes."""
    _require_no_recipe(path)
    experiment = load_experiment(path)
    if status_path(path.parent, experiment.name).is_file():
        return experiment, path.parent
    running = experiments / f"{experiment.name}.yaml"
    if status_path(experiments, experiment.name).is_file() and running.is_file():
        status = load_experiment(running).status
        return experiment.model_copy(update={"status": status}), experiments
    return experiment, path.parent


def _require_no_recipe(path: Path) -> None:
    """A recipe is easily given for its experiment: it lies beside it, and other verbs take it."""
    if not path.is_file():
        return
    raw = read_yaml(path)
    if "kind" in raw or not {"run", "model"} <= raw.keys():
        return
    named = raw.get("experiment")
    hint = f"emberline compare {path.parent / str(named)}" if named else "it names no `experiment:`"
    raise InvalidSetting(path, "the file", "a recipe", "an experiment", hint=hint)
