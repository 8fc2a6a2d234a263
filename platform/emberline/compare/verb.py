"""What `emberline compare` does: assess, then leave a report for each experiment."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from emberline.compare.assess import assess
from emberline.compare.assessment import Assessment
from emberline.compare.costs import read_usage, with_costs
from emberline.compare.history import read_looks
from emberline.compare.observe import observe
from emberline.compare.report import write_report
from emberline.compare.routed import read_routed
from emberline.compare.spark import observe_by_spark
from emberline.errors import InvalidOption, InvalidSetting, MissingFile
from emberline.experiment import Experiment, Segment, load_experiment, status_path
from emberline.recipe import read_yaml

_NUMBER = r"-?\d+(?:\.\d+)?"
_SEGMENT = re.compile(
    rf"^(?P<metric>[a-z][a-z0-9_]*)(?:\s*>\s*(?P<above>{_NUMBER}))?(?:\s*<=\s*(?P<at_most>{_NUMBER}))?$"
)


def compare_experiments(
    paths: Sequence[Path],
    data: Path,
    report: Path,
    experiments: Path,
    *,
    segments: Sequence[str] = (),
    spark: str | None = None,
) -> Iterator[tuple[Assessment, Path]]:
    """Each experiment's assessment, with the page that was written for it.

    Args:
        spark: master of the Spark cluster that sums the rows; DuckDB does it here when absent.
        segments: to look at without having been declared, such as `tenure_days > 30`.

    Raises:
        MissingFile: no experiment was named and none runs, or the data's folder is not there.
    """
    exploratory = tuple(map(parse_segment, segments))
    named = tuple(paths) or tuple(sorted(experiments.glob("*.yaml")))
    if not named:
        hint = "`emberline up` starts the recipe's experiment; or name an Experiment file"
        raise MissingFile(experiments / "*.yaml", "an experiment", hint=hint)
    found = [find_experiment(path, experiments) for path in named]
    if not data.is_dir():
        hint = "`emberline up` and `make demo` make it as they run; name another by --data"
        raise MissingFile(data, "the folder of exposures and outcomes", hint=hint)
    for experiment, folder in found:
        now = time.time()
        if spark is None:
            seen = observe(experiment, data, until=now, exploratory=exploratory)
        else:
            seen = observe_by_spark(experiment, data, until=now, exploratory=exploratory, master=spark)
        seen = replace(seen, routed=read_routed(folder, experiment))
        look = assess(experiment, seen, now, exploratory=exploratory)
        look = with_costs(look, experiment, read_usage(folder, experiment))
        looks = tuple(past for past in read_looks(folder, experiment.name) if past.at <= now)
        yield look, write_report(report / experiment.name, experiment, look, looks)


def parse_segment(text: str) -> Segment:
    """A segment from `metric > number`, `metric <= number`, or both: `age > 18 <= 30`.

    Raises:
        InvalidOption: it is none.
    """
    match = _SEGMENT.match(text.strip())
    if match is None or match["above"] is match["at_most"] is None:
        required = "`metric > number`, `metric <= number` or both"
        raise InvalidOption("compare", "--segment", text, required, hint='--segment "tenure_days > 30"')
    bounds = {name: float(match[name]) for name in ("above", "at_most") if match[name] is not None}
    name = "-".join(re.findall(r"[a-z0-9]+", text.lower().replace("<=", "to").replace(">", "above")))[:40].strip("-")
    return Segment(name=name, metric=match["metric"], **bounds)


def find_experiment(path: Path, experiments: Path) -> tuple[Experiment, Path]:
    """An experiment with its status, and the folder that status is in: beside the file, else where rollout writes."""
    _require_no_recipe(path)
    experiment = load_experiment(path)
    if status_path(path.parent, experiment.name).is_file():
        return experiment, path.parent
    running = experiments / f"{experiment.name}.yaml"
    if status_path(experiments, experiment.name).is_file() and running.is_file():
        return experiment.under(load_experiment(running).status), experiments
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
