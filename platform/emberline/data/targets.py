"""What rows are labelled with, task by task, made an array that losses and metrics take.

classification   the number of the row's class: (B,)
detection        the objects of a picture, one line each: the number of its class, then left, top, right and bottom as
                 fractions of the picture. Pictures of a batch have different numbers of objects: lines that only fill
                 up have class -1. (B, M, 5)
segmentation     the number of each pixel's class, (H, W) in the size of the picture; in a batch in the size of the
                 model's input: (B, H, W)

Legend of shapes: B rows, M objects, K classes, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emberline import assets
from emberline.recipe import Recipe, Task

ABSENT = -1  # the class of an object that only fills up
_OBJECT = 5  # class and four sides
_PLANE = 2  # dimensions of a mask


@dataclass(frozen=True)
class Targets:
    """How rows of one recipe are labelled."""

    task: Task = "classification"
    num_classes: int = 0

    def of(self, labels: Sequence[Any], size: tuple[int, ...]) -> NDArray[Any]:
        """The labels of some rows, as one array.

        Args:
            size: (H, W) of the first input as the model takes it.

        Raises:
            BadTarget: one cannot be used; names its place among the rows.
        """
        if self.task == "detection":
            return _stacked([_told(row, self._objects, label) for row, label in enumerate(labels)])
        if self.task == "segmentation":
            return np.stack([_told(row, lambda one: self._mask(one, size), label) for row, label in enumerate(labels)])
        return np.asarray([int(label) for label in labels], np.int64)

    def _objects(self, label: Any) -> NDArray[np.float32]:
        objects = np.asarray(label, np.float32)
        if objects.size == 0:
            return np.empty((0, _OBJECT), np.float32)
        if objects.ndim != _PLANE or objects.shape[1] != _OBJECT:
            raise ValueError(f"objects of shape {list(objects.shape)}; [objects, {_OBJECT}] is required")
        classes, boxes = objects[:, 0], objects[:, 1:]
        if not np.isin(classes, np.arange(self.num_classes)).all():
            raise ValueError(
                f"an object's class is {classes.min():g} to {classes.max():g}; {self._range()} is required"
            )
        # said so that NaN is refused too
        if not ((boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
            raise ValueError("a box is no left, top, right, bottom in fractions of the picture, 0 to 1")
        return objects

    def _mask(self, label: Any, size: tuple[int, ...]) -> NDArray[np.int64]:
        mask = np.asarray(label)
        if mask.ndim != _PLANE or mask.dtype.kind not in "iu" or mask.size == 0:
            raise ValueError(f"a mask of {mask.dtype}{list(mask.shape)}; whole numbers [height, width] are required")
        if mask.min() < 0 or mask.max() >= self.num_classes:
            raise ValueError(f"a mask's classes are {mask.min()} to {mask.max()}; {self._range()} is required")
        resized: NDArray[np.int64] = assets.handler_module("ember_masks").resized(mask, size).astype(np.int64)
        return resized

    def _range(self) -> str:
        return f"0 to {self.num_classes - 1}, an index into the recipe's labels,"


class BadTarget(ValueError):
    """A row's label cannot be used.

    Attributes:
        row: its place among the rows that were asked for.
    """

    def __init__(self, row: int, fact: str) -> None:
        self.row = row
        super().__init__(fact)


def targets_of(recipe: Recipe) -> Targets:
    return Targets(recipe.train.task, len(recipe.labels))


def _told(row: int, make: Any, label: Any) -> NDArray[Any]:
    try:
        made: NDArray[Any] = make(label)
    except (ValueError, TypeError) as error:
        raise BadTarget(row, str(error)) from error
    return made


def _stacked(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Objects of all pictures, filled up to the most that one has, and at least one."""
    most = max(1, *map(len, rows))
    objects = np.zeros((len(rows), most, _OBJECT), np.float32)
    objects[..., 0] = ABSENT
    for row, one in enumerate(rows):
        objects[row, : len(one)] = one
    return objects
