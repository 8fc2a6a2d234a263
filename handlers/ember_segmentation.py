"""Segmentation: a picture in, the class of each of its pixels out.

    {"mask": "iVBORw0…", "shares": {"background": 0.81, "cat": 0.19}}

The mask is base64 of a PNG of one byte a pixel in the size of the picture that was sent: 0 is the first label. Shares
are of the pixels that the model saw.

Shapes in the text: B rows, K classes.
"""

from collections.abc import Sequence
from typing import Any

import ember_masks
import ember_oip
import ember_prediction
import ember_protocol
import numpy as np
from ember_image import EmberImage
from ember_prediction import Prediction
from ember_preprocessing import Array

_DIMENSIONS = 4  # rows, classes, height, width


class EmberSegmentation(EmberImage):
    """Decodes a segmentation net's first output."""

    def interpret(self, outputs: Array) -> Sequence[Prediction | None]:
        if outputs.ndim != _DIMENSIONS or outputs.shape[1] != len(self.labels):
            raise ValueError(
                f"outputs of shape {list(outputs.shape)}; [rows, {len(self.labels)}, height, width] needed"
            )
        return ember_prediction.interpret(outputs, ())

    def render(
        self, request: ember_protocol.Request, predictions: Sequence[Prediction], model: str, version: str
    ) -> bytes:
        classes = [ember_masks.classes_of(one.scores) for one in predictions]
        masks = [
            ember_masks.to_png(ember_masks.resized(one, size))
            for one, size in zip(classes, self.sizes(request), strict=True)
        ]
        shares = [ember_masks.shares(one, len(self.labels)) for one in classes]
        if request.call is not None:
            tensors = [
                {"name": "mask", "shape": [len(masks)], "datatype": "BYTES", "data": masks},
                ember_oip.floats("shares", np.stack(shares)),
            ]
            return ember_protocol.dump(ember_oip.respond(request.call, tensors, model, version))
        answers = [
            {"mask": mask, "shares": dict(zip(self.labels, share.tolist(), strict=True))}
            for mask, share in zip(masks, shares, strict=True)
        ]
        return ember_protocol.render_plain(request, answers)

    def outputs(self) -> list[dict[str, Any]]:
        return [
            {"name": "mask", "datatype": "BYTES", "shape": [-1]},
            {"name": "shares", "datatype": "FP32", "shape": [-1, len(self.labels)]},
        ]
