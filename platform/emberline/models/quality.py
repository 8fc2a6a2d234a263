"""How good a model's outputs are, row by row: what gates hold a candidate and its baseline against each other by.

classification, ranking   1 where the largest output is the row's label, else 0
detection                 average precision at an overlap of one half, of the picture alone and all classes together
segmentation              mean intersection over union of the classes that the picture or its answer has

The mean over pictures is not the metric over all of them together, which training tells; but it has a value a row, and
so a bound for a drop of it.

Legend of shapes: B rows.
"""

import numpy as np
from numpy.typing import NDArray

from emberline.models import average_precision, mean_iou
from emberline.recipe import Task

Floats = NDArray[np.float64]


def of_rows(task: Task, outputs: NDArray[np.float32], targets: NDArray[np.generic]) -> Floats:
    """0 to 1 for each row, (B,).

    Args:
        outputs: the model's first output, rows first.
        targets: as `emberline.data.targets` makes them.
    """
    pairs = zip(outputs, targets, strict=True)
    if task == "detection":
        num_classes = outputs.shape[-1] - 4
        found = (average_precision.found_in(one, truth, num_classes) for one, truth in pairs)
        return np.array([average_precision.of_picture(one) for one in found], np.float64)
    if task == "segmentation":
        return np.array([mean_iou.mean_iou(mean_iou.counted(one, truth)) for one, truth in pairs], np.float64)
    return np.asarray(outputs.argmax(axis=-1) == targets, np.float64)
