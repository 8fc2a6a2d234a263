"""How well a detector finds objects: average precision at an overlap of one half.

Detections are taken in falling order of their scores over all pictures. One is right where it overlaps an object of its
class by at least half (intersection over union) that no surer one has taken. Average precision is the area under
precision, made monotone, against recall; the mean is over classes that occur. All points count, not 11 or 101 of them.

Source: Everingham et al., The Pascal Visual Object Classes Challenge (2010), section 4.2, with the area under all
points as of VOC 2010.
Legend of shapes: B pictures, M objects, D detections, K classes, F = 4 + K.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emberline import assets

OVERLAP = 0.5
_LEAST_SCORE = 0.05  # surer ones alone are looked at: what is not answered anyway adds little to the area
_ANSWERED = 0.25  # as a handler answers by; decides on pictures without objects


class Found(NamedTuple):
    """What was found in some pictures.

    Attributes:
        scores, classes, right: (D,), of each detection.
        objects: (K,), how many there are of each class.
    """

    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    right: NDArray[np.bool_]
    objects: NDArray[np.int64]


def found_in(outputs: NDArray[np.float32], targets_M5: NDArray[np.float32], num_classes: int) -> Found:  # noqa: N803
    """One picture's raw outputs (…, F) against its objects (class -1 where there is none)."""
    boxes = assets.handler_module("ember_boxes")
    detected = boxes.detect(outputs, _LEAST_SCORE)
    truth = targets_M5[targets_M5[:, 0] >= 0]
    classes = truth[:, 0].astype(np.int64)
    fits = boxes.overlaps(detected.boxes, truth[:, 1:]) * (detected.classes[:, None] == classes[None])
    right = np.zeros(len(detected.scores), bool)
    for row in range(len(right)):  # the surest first
        best = int(fits[row].argmax()) if len(classes) else 0
        if len(classes) and fits[row, best] >= OVERLAP:
            right[row] = True
            fits[:, best] = 0
    return Found(detected.scores, detected.classes, right, np.bincount(classes, minlength=num_classes))


def mean_average_precision(found: Sequence[Found]) -> float:
    """Over all pictures; NaN where there is no object at all."""
    scores, classes, right = (np.concatenate([getattr(one, name) for one in found]) for name in Found._fields[:3])
    objects = np.sum([one.objects for one in found], axis=0)
    order = np.argsort(-scores, kind="stable")
    classes, right = classes[order], right[order]
    values = [_area(right[classes == number], int(objects[number])) for number in np.flatnonzero(objects)]
    return float(np.mean(values)) if values else float("nan")


def of_picture(found: Found) -> float:
    """Average precision of one picture, all classes taken together: an object called by another name counts too.

    Of a picture without objects 1 where nothing would be answered, else 0.
    """
    if found.objects.any():
        return _area(found.right, int(found.objects.sum()))
    return float(not (found.scores >= _ANSWERED).any())


def _area(right: NDArray[np.bool_], num_objects: int) -> float:
    """Average precision of one class, from its detections in falling order of their scores."""
    reached = np.cumsum(right)
    precision = reached / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / num_objects)
