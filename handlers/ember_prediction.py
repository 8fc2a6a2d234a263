"""What one row's raw outputs mean: scores and a label for a classifier, the outputs as they are for other models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class NotFinite(Exception):
    """The model answered a row with NaN or infinity: its fault, not the client's."""


@dataclass(frozen=True)
class Prediction:
    """One row's answer.

    Attributes:
        scores: probabilities of the classes; of a model without labels its raw outputs.
        label: name of the likeliest class; None without labels.
    """

    scores: Floats
    label: str | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON ready for a serializer that takes numpy arrays; a model without labels has `outputs` alone."""
        if self.label is None:
            return {"outputs": self.scores}
        return {"label": self.label, "score": float(self.scores.max()), "scores": self.scores}


def interpret(outputs: NDArray[Any], labels: Sequence[str]) -> Prediction:
    """One row of raw outputs to its prediction.

    Raises:
        NotFinite: an output is NaN or infinite.
        ValueError: there are labels, and not as many as outputs.
    """
    raw = np.ascontiguousarray(outputs, np.float32)
    if not np.isfinite(raw).all():
        raise NotFinite
    if not labels:
        return Prediction(raw)
    if raw.shape != (len(labels),):
        raise ValueError(f"the model has outputs of shape {list(raw.shape)}; its {len(labels)} labels require one each")
    exponents = np.exp(raw - raw.max())
    scores: Floats = exponents / exponents.sum()
    return Prediction(scores, labels[int(raw.argmax())])
