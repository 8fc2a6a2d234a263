"""What raw outputs mean: scores and a label for a classifier, the outputs as they are for other models.

Shapes in the text: B rows, K classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

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

    def after(self, passes: int) -> "Prediction":
        """The same answer, given by a later model of a cascade."""
        return Prediction(self.scores, self.label, self.score, passes)

    def as_json(self) -> dict[str, Any]:
        """JSON ready for a serializer that takes numpy arrays; a model without labels has `outputs` alone."""
        if self.label is None:
            return {"outputs": self.scores}
        return {"label": self.label, "score": self.score, "scores": self.scores}


def interpret(outputs: NDArray[Any], labels: Sequence[str]) -> list[Prediction | None]:
    """Raw outputs of a batch to a prediction for each row; None where an output is NaN or infinite.

    Args:
        outputs: (B, K) with labels, (B, …) without.

    Raises:
        ValueError: there are labels, and not as many as outputs.
    """
    raw: Floats = np.ascontiguousarray(outputs, np.float32)
    finite = np.asarray(np.isfinite(raw).reshape(len(raw), -1).all(axis=1))
    if not labels:
        return [Prediction(row) if usable else None for row, usable in zip(raw, finite, strict=True)]
    if raw.shape[1:] != (len(labels),):
        raise ValueError(
            f"outputs of a row have shape {list(raw.shape[1:])}; its {len(labels)} labels require one each"
        )
    with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite are left out below
        exponents = np.exp(raw - raw.max(axis=1, keepdims=True))
        scores = exponents / exponents.sum(axis=1, keepdims=True)
    best = raw.argmax(axis=1)
    likeliest = scores[np.arange(len(scores)), best].tolist()
    return [
        Prediction(row, labels[index], score) if usable else None
        for row, index, score, usable in zip(scores, best.tolist(), likeliest, finite.tolist(), strict=True)
    ]
