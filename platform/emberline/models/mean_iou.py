"""How well a net tells the classes of pixels apart: intersection over union of each class, and their mean.

Source: Everingham et al., The Pascal Visual Object Classes Challenge (2010), section 4.3.
Legend of shapes: B pictures, K classes, H height, W width.
"""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def counted(outputs_KHW: NDArray[np.float32], targets_HW: NDArray[np.int64]) -> Counts:  # noqa: N803 - shape suffixes
    """Of one picture, for each class the pixels that answer and truth share, and those that either has: (K, 2)."""
    num_classes = len(outputs_KHW)
    pairs = targets_HW * num_classes + outputs_KHW.argmax(axis=0)
    confusion = np.bincount(pairs.reshape(-1), minlength=num_classes**2).reshape(num_classes, num_classes)
    shared = confusion.diagonal()
    return np.stack([shared, confusion.sum(0) + confusion.sum(1) - shared], axis=1).astype(np.int64)


def mean_iou(counts_K2: Counts) -> float:  # noqa: N803 - shape suffixes
    """The mean over classes that answer or truth have anywhere."""
    shared, either = counts_K2.T
    there = either > 0
    return float((shared[there] / either[there]).mean())
