"""Boxes of objects: from a detector's raw outputs to what stands in a picture, in numpy, for handler and metric alike.

A detector answers with candidates, however they are arranged: four numbers for the sides of a box (left, top, right,
bottom, as fractions of the picture's width and height), then one number a class, whose sigmoid is that class's score.

Legend of shapes: N candidates, K classes, D detections.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Array = NDArray[Any]

SIDES = 4
MAX_OVERLAP = 0.5  # of two boxes of one class, as intersection over union; the less sure one of them goes
DECIMALS = 2  # of a pixel, in answers
MOST = 100  # objects of one picture; those that are surest


class Detections(NamedTuple):
    """What was found in one picture, the surest first.

    Attributes:
        boxes: (D, 4), left, top, right, bottom as fractions of the picture, inside of it.
        classes: (D,)
        scores: (D,)
    """

    boxes: Floats
    classes: NDArray[np.int64]
    scores: Floats


def detect(outputs: Array, least: float, most: int = MOST, max_overlap: float = MAX_OVERLAP) -> Detections:
    """One picture's raw outputs (…, 4 + K), decoded and thinned out: each candidate stands for its likeliest class.

    Args:
        least: candidates with a lower score are left out.
    """
    rows = outputs.reshape(-1, outputs.shape[-1]).astype(np.float32, copy=False)
    classes = rows[:, SIDES:].argmax(axis=1)
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-rows[np.arange(len(rows)), SIDES + classes]))
    boxes = np.clip(rows[:, :SIDES], 0, 1)
    usable = np.flatnonzero((scores >= least) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    best = usable[np.argsort(-scores[usable], kind="stable")]
    # of thousands of candidates only so many can be among the surest `most` that are left
    best = best[: 4 * most]
    kept = best[suppress(boxes[best], classes[best], max_overlap)][:most]
    return Detections(boxes[kept], classes[kept].astype(np.int64), scores[kept])


def pixels(found: Detections, size: tuple[int, int]) -> Array:
    """Boxes in the pixels of a picture of this height and width."""
    height, width = size
    return np.round(found.boxes.astype(np.float64) * (width, height, width, height), DECIMALS)


def to_json(found: Detections, size: tuple[int, int], labels: Sequence[str]) -> list[dict[str, Any]]:
    """As answers tell them."""
    return [
        {"box": box, "label": labels[number], "score": score}
        for box, number, score in zip(
            pixels(found, size).tolist(), found.classes.tolist(), found.scores.tolist(), strict=True
        )
    ]


def suppress(boxes: Array, classes: Array, max_overlap: float) -> NDArray[np.int64]:
    """Non-maximum suppression: which boxes stay, of boxes (N, 4) that stand in falling order of their scores.

    A box goes that overlaps a surer one of its class, which itself stays, by more than `max_overlap`.
    """
    collides = (overlaps(boxes, boxes) > max_overlap) & (classes[:, None] == classes[None])
    left = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if left[index]:
            left[index + 1 :] &= ~collides[index, index + 1 :]
    return np.flatnonzero(left).astype(np.int64)


def overlaps(ones: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of each pair of boxes (N, 4) and (M, 4): (N, M); 0 where both are empty."""
    first, second = np.asarray(ones, np.float64)[:, None], np.asarray(others, np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    union = _areas(first) + _areas(second) - shared
    found: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def _areas(boxes: Array) -> Array:
    return np.asarray(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(axis=-1))
