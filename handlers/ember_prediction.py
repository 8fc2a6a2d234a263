"""What raw outputs mean: scores and a label for a classifier, the outputs as they are for other models.

Shapes in the text: B rows, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Prediction(NamedTuple):
    """One row's answer; a tuple, since a ranking makes hundreds of them.

    Attributes:
        scores: probabilities of the classes; of a model without labels its raw outputs.
        label: name of the likeliest class; None without labels.
        score: that class's probability.
        passes: how many models of a cascade looked at the row after the first one.
    """

    scores: Floats
    label: str | None = None
    score: float = 0.0
    passes: int = 0

    def as_json(self) -> dict[str, Any]:
        """JSON ready for a serializer that takes numpy arrays; a model without labels has `outputs` alone."""
        if self.label is None:
            return {"outputs": self.scores}
        return {"label": self.label, "score": self.score, "scores": self.scores}


@dataclass(frozen=True)
class Predictions(Sequence[Prediction | None]):
    """A batch's answers as arrays: a ranking looks at hundreds of rows, of which few are ever told one by one.

    A row is made when it is asked for; None where it cannot be used.

    Attributes:
        scores: (B, K), or (B, …) of a model without labels.
        score: (B,) probability of the likeliest class; zeros without labels.
        best: (B,) its place in `labels`.
        passes: (B,) how many models of a cascade looked at a row after the first one.
        usable: (B,) false where an output is NaN or infinite.
        labels: names of the classes, if there are any.
    """

    scores: Floats
    score: Floats
    best: NDArray[np.intp]
    passes: NDArray[np.intp]
    usable: NDArray[np.bool_]
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, place: int) -> Prediction | None: ...
    @overload
    def __getitem__(self, place: slice) -> "Predictions": ...
    def __getitem__(self, place: int | slice) -> "Prediction | Predictions | None":
        if isinstance(place, slice):
            return Predictions(
                self.scores[place], self.score[place], self.best[place], self.passes[place], self.usable[place],
                self.labels,
            )  # fmt: skip
        if not self.usable[place]:
            return None
        label = self.labels[self.best[place]] if self.labels else None
        return Prediction(self.scores[place], label, self.score.item(place), self.passes.item(place))

    def __iter__(self) -> Iterator[Prediction | None]:
        return map(self.__getitem__, range(len(self)))

    @property
    def relevances(self) -> Floats:
        """What each row is ranked by: its last score."""
        last: Floats = self.scores.reshape(len(self), -1)[:, -1]
        return last

    def replace(self, rows: NDArray[np.intp], answers: "Predictions", passes: int) -> None:
        """Puts a later model's answers, of as many classes, in the place of some rows' own."""
        self.scores[rows], self.score[rows], self.best[rows] = answers.scores, answers.score, answers.best
        self.usable[rows], self.passes[rows] = answers.usable, passes


def all_usable(predictions: Sequence[Prediction | None]) -> bool:
    """Whether each row has an answer; also of the plain list that a user's handler may give."""
    if isinstance(predictions, Predictions):
        return bool(predictions.usable.all())
    return None not in predictions


def interpret(outputs: NDArray[Any], labels: Sequence[str]) -> Predictions:
    """Raw outputs of a batch to a prediction for each row.

    Args:
        outputs: (B, K) with labels, (B, …) without.

    Raises:
        ValueError: there are labels, and not as many as outputs.
    """
    raw: Floats = np.ascontiguousarray(outputs, np.float32)
    finite = np.asarray(np.isfinite(raw).reshape(len(raw), -1).all(axis=1))
    passes = np.zeros(len(raw), np.intp)
    if not labels:
        return Predictions(raw, np.zeros(len(raw), np.float32), passes, passes.copy(), finite, ())
    if raw.shape[1:] != (len(labels),):
        raise ValueError(
            f"outputs of a row have shape {list(raw.shape[1:])}; its {len(labels)} labels require one each"
        )
    with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite are told as such
        exponents = np.exp(raw - raw.max(axis=1, keepdims=True))
        scores = exponents / exponents.sum(axis=1, keepdims=True)
    best = raw.argmax(axis=1)
    return Predictions(scores, scores[np.arange(len(scores)), best], best, passes, finite, labels)
