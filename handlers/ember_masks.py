"""Masks: from a segmentation net's raw outputs to a class for each pixel, in numpy and Pillow.

A net for segmentation answers with one number a class for each pixel of the picture as it was resized; the largest
decides. The mask that a client gets is a PNG of one byte a pixel, the class's number, in the size of its own picture.

Legend of shapes: B rows, K classes, H height, W width.
"""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Classes = NDArray[np.uint8]
MAX_CLASSES = 256  # as many as a byte tells apart


def classes_of(outputs: NDArray[Any]) -> Classes:
    """Raw outputs (…, K, H, W) to the number of each pixel's class, (…, H, W)."""
    classes: Classes = outputs.argmax(axis=-3).astype(np.uint8)
    return classes


def shares(classes: Classes, num_classes: int) -> NDArray[np.float32]:
    """The part of the pixels that each class has, (K,)."""
    counts = np.bincount(classes.reshape(-1), minlength=num_classes)
    return (counts / classes.size).astype(np.float32)


def resized(classes: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Classes (H, W) in another size (height, width): each pixel takes the class that stands at its middle."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, classes.shape, strict=True)
    )
    found: NDArray[Any] = classes[rows[:, None], columns[None]]
    return found


def to_png(classes: Classes) -> str:
    """Base64 of a PNG in shades of grey whose values are the classes' numbers."""
    file = io.BytesIO()
    Image.fromarray(classes).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def from_png(text: str) -> Classes:
    """The classes (H, W) of such a PNG."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        return np.asarray(image)
