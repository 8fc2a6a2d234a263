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

import ember_bare
import ember_packages
import ember_prediction
import ember_probe
import ember_protocol
import numpy as np
import orjson
from ember_handler import Job, columns_of, log
from ember_prediction import Predictions
from ember_preprocessing import Array, Preprocessing, stack
from ember_ranking import EmberRanking, Ranking
from numpy.typing import NDArray
from ts.context import Context

Rows = NDArray[np.intp]


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
            self._ask(number, [orjson.loads((folder / ember_probe.PROBE).read_bytes())["instance"]])

    def model_folder(self, folder: Path) -> Path:
        passes = orjson.loads((folder / "cascade.json").read_bytes())["passes"]
        return folder / str(passes[0]["folder"])

    def body(self, body: Any) -> ember_protocol.Request:
        """A raw picture or bare text where the first pass takes one, as its own handler would read it."""
        if self._bare == "image":
            body = ember_bare.picture(self.preprocessing.inputs, body)
        elif self._bare == "text":
            body = ember_bare.text(self.preprocessing.inputs, body, self.content_type)
        return super().body(body)

    def field(self, part: Any) -> Any:
        if self._bare == "image" and ember_bare.is_picture(part):
            return part
        if self._bare == "text":
            return ember_bare.decoded(part) if isinstance(part, bytes | bytearray) else part
        return super().field(part)

    def compute(self, jobs: Sequence[Job]) -> Predictions:
        columns = columns_of(jobs)
        predictions = ember_prediction.interpret(self.model(columns)[0], self.labels)
        instances = [instance for job in jobs for instance in job.request.instances]
        going = np.arange(len(predictions))
        for number, rule in enumerate(self.rules, start=1):
            going = _sent_on(jobs, predictions, rule, going)
            if not len(going):
                break
            if self.later[number - 1][0].specification == self.preprocessing.specification:
                # prepared alike, so what the first pass was given will do
                answers = self._interpreted(number, tuple(column[going] for column in columns))
            else:
                answers = self._ask(number, [instances[row] for row in going])
            predictions.replace(going, answers, number)
        return predictions

    @property
    def _bare(self) -> str | None:
        """What the first pass takes besides JSON."""
        kinds = [spec.get("kind") for spec in self.preprocessing.inputs]
        return "image" if kinds[0] == "image" else "text" if "text" in kinds else None

    def _ask(self, number: int, instances: Sequence[Mapping[str, Any]]) -> Predictions:
        preprocessing, _ = self.later[number - 1]
        columns = preprocessing.together(instances)
        if columns is None:
            columns = stack([preprocessing(instance) for instance in instances])
        return self._interpreted(number, columns)

    def _interpreted(self, number: int, columns: tuple[Array, ...]) -> Predictions:
        return ember_prediction.interpret(self.later[number - 1][1](columns)[0], self.labels)


def _load(folder: Path) -> tuple[Preprocessing, ember_packages.LoadedModel]:
    described = orjson.loads((folder / ember_packages.DESCRIPTION).read_bytes())
    return Preprocessing(described["preprocessing"]), ember_packages.load(folder, described, report=log.info)


def _sent_on(jobs: Sequence[Job], predictions: Predictions, rule: Mapping[str, Any], left: Rows) -> Rows:
    """Rows that the next pass shall look at, by their place among those of all jobs; `left` are those of this pass."""
    sent = []
    left, end = left[predictions.usable[left]], 0
    for job in jobs:
        start, end = end, end + job.num_rows
        rows = left[(left >= start) & (left < end)]
        if isinstance(job.request, Ranking):
            sent.append(_best(rows, predictions, rule.get("keep")))
        elif rule.get("confidence") is not None:
            sent.append(rows[predictions.score[rows] < rule["confidence"]])
        else:  # a pass that only knows how to thin out rankings lets all else through to the best model
            sent.append(rows)
    return np.concatenate(sent)


def _best(rows: Rows, predictions: Predictions, keep: int | None) -> Rows:
    if keep is None or len(rows) <= keep:
        return rows
    order = np.argsort(-predictions.relevances[rows], kind="stable")
    return np.sort(rows[order[:keep]])
