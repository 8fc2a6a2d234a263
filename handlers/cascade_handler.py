"""Serves several models as one: a light one answers first, and heavier ones only look where that pays.

`cascade.json` lists the passes, each a folder of its own in the archive. Two rules say who goes on to the next pass:

    keep         of a ranking, that many of the best items
    confidence   a row whose likeliest class is less probable than this

Both rules may stand in one pass: `keep` is for rankings, `confidence` for all other requests. A row that is not sent on
keeps the answer it has.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ember_packages
import numpy as np
import orjson
from ember_handler import Job, log
from ember_prediction import Prediction
from ember_preprocessing import Preprocessing, stack
from ember_ranking import EmberRanking, Ranking, relevances
from ts.context import Context


class CascadeHandler(EmberRanking):
    """The first pass is loaded and asked as any handler's model; the others take the rows that are left.

    Attributes:
        rules: of each pass but the last, in order.
        later: preprocessing and model of each further pass.
    """

    rules: Sequence[Mapping[str, Any]]
    later: Sequence[tuple[Preprocessing, ember_packages.LoadedModel]]

    def initialize(self, context: Context) -> None:
        folder = Path(context.system_properties["model_dir"])
        passes = orjson.loads((folder / "cascade.json").read_bytes())["passes"]
        self.rules = passes[:-1]
        self.later = [_load(folder / one["folder"]) for one in passes[1:]]
        super().initialize(context)
        for number in range(1, len(passes)):
            self._ask(number, [orjson.loads((folder / ember_packages.PROBE).read_bytes())["instance"]])

    def model_folder(self, folder: Path) -> Path:
        passes = orjson.loads((folder / "cascade.json").read_bytes())["passes"]
        return folder / str(passes[0]["folder"])

    def compute(self, jobs: Sequence[Job]) -> list[Prediction | None]:
        predictions = super().compute(jobs)
        instances = [instance for job in jobs for instance in job.request.instances]
        columns = tuple(np.concatenate(column) for column in zip(*(job.columns for job in jobs), strict=True))
        going = list(range(len(predictions)))
        for number, rule in enumerate(self.rules, start=1):
            going = _sent_on(jobs, predictions, rule, frozenset(going))
            if not going:
                break
            if self.later[number - 1][0].specification == self.preprocessing.specification:
                # prepared alike, so what the first pass was given will do
                asked = self.interpret(self.later[number - 1][1](tuple(column[going] for column in columns))[0])
            else:
                asked = self._ask(number, [instances[row] for row in going])
            for row, prediction in zip(going, asked, strict=True):
                predictions[row] = prediction and prediction.after(number)
        return predictions

    def _ask(self, number: int, instances: Sequence[Mapping[str, Any]]) -> list[Prediction | None]:
        preprocessing, model = self.later[number - 1]
        columns = preprocessing.together(instances)
        if columns is None:
            columns = stack([preprocessing(instance) for instance in instances])
        return self.interpret(model(columns)[0])


def _load(folder: Path) -> tuple[Preprocessing, ember_packages.LoadedModel]:
    described = orjson.loads((folder / ember_packages.DESCRIPTION).read_bytes())
    return Preprocessing(described["preprocessing"]), ember_packages.load(folder, described, report=log.info)


def _sent_on(
    jobs: Sequence[Job], predictions: Sequence[Prediction | None], rule: Mapping[str, Any], left: frozenset[int]
) -> list[int]:
    """Rows that the next pass shall look at, by their place among those of all jobs; `left` are those of this pass."""
    sent: list[int] = []
    start = 0
    for job in jobs:
        rows = [row for row in range(start, start + job.num_rows) if row in left and predictions[row] is not None]
        start += job.num_rows
        if isinstance(job.request, Ranking):
            sent += _best(rows, predictions, rule.get("keep"))
        elif rule.get("confidence") is not None:
            sent += [row for row in rows if _confidence(predictions[row]) < rule["confidence"]]
        else:  # a pass that only knows how to thin out rankings lets all else through to the best model
            sent += rows
    return sent


def _best(rows: list[int], predictions: Sequence[Prediction | None], keep: int | None) -> list[int]:
    if keep is None or len(rows) <= keep:
        return rows
    order = np.argsort(-relevances([one for row in rows if (one := predictions[row]) is not None]), kind="stable")
    return sorted(rows[place] for place in order[:keep])


def _confidence(prediction: Prediction | None) -> float:
    return prediction.score if prediction is not None and prediction.label is not None else 0.0
