"""Object detection: a picture in, boxes of what is in it out, in its own pixels.

    {"detections": [{"box": [left, top, right, bottom], "label": "cat", "score": 0.93}, …]}

The surest comes first, and each object once. In the Open Inference Protocol a row has as many places as the row with
most objects: `num_detections` tells how many count, the others are zeros and empty labels.

Shapes in the text: B rows, M places, K classes.
"""

from collections.abc import Sequence
from typing import Any

import ember_boxes
import ember_oip
import ember_prediction
import ember_protocol
import numpy as np
from ember_boxes import Detections
from ember_image import EmberImage
from ember_prediction import Prediction
from ember_preprocessing import Array


class EmberDetection(EmberImage):
    """Decodes a detector's first output; a handler of the user's own may set another `min_score`.

    Attributes:
        min_score: what is less sure is left out of an answer.
    """

    min_score = 0.25

    def interpret(self, outputs: Array) -> Sequence[Prediction | None]:
        width = ember_boxes.SIDES + len(self.labels)
        if outputs.shape[-1] != width:
            raise ValueError(f"candidates of {outputs.shape[-1]} numbers; {width} are required: a box and the classes")
        return ember_prediction.interpret(outputs, ())

    def render(
        self, request: ember_protocol.Request, predictions: Sequence[Prediction], model: str, version: str
    ) -> bytes:
        found = [ember_boxes.detect(one.scores, self.min_score) for one in predictions]
        pairs = list(zip(found, self.sizes(request), strict=True))
        if request.call is not None:
            tensors = to_tensors(pairs, self.labels)
            return ember_protocol.dump(ember_oip.respond(request.call, tensors, model, version))
        answers = [{"detections": ember_boxes.to_json(one, size, self.labels)} for one, size in pairs]
        return ember_protocol.render_plain(request, answers)

    def outputs(self) -> list[dict[str, Any]]:
        kinds = {"num_detections": "INT64", "boxes": "FP32", "scores": "FP32", "labels": "BYTES"}
        shapes = {"num_detections": [-1], "boxes": [-1, -1, ember_boxes.SIDES]}
        return [{"name": name, "datatype": kind, "shape": shapes.get(name, [-1, -1])} for name, kind in kinds.items()]


def to_tensors(pairs: Sequence[tuple[Detections, tuple[int, int]]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Tensors of the Open Inference Protocol: counts (B,), boxes (B, M, 4), scores and labels (B, M)."""
    counts = [len(found.scores) for found, _ in pairs]
    places = max(counts)
    boxes = np.zeros((len(pairs), places, ember_boxes.SIDES), np.float32)
    scores = np.zeros((len(pairs), places), np.float32)
    names: list[str] = []
    for row, ((found, size), count) in enumerate(zip(pairs, counts, strict=True)):
        boxes[row, :count], scores[row, :count] = ember_boxes.pixels(found, size), found.scores
        names += [labels[number] for number in found.classes.tolist()] + [""] * (places - count)
    shape = [len(pairs), places]
    return [
        {"name": "num_detections", "shape": [len(pairs)], "datatype": "INT64", "data": counts},
        ember_oip.floats("boxes", boxes),
        ember_oip.floats("scores", scores),
        {"name": "labels", "shape": shape, "datatype": "BYTES", "data": names},
    ]
