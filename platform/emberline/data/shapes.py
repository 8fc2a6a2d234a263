"""Pictures of coloured shapes with their boxes and masks, made up from a seed: nothing to download, learnt in seconds.

They show that detection and segmentation work from training to serving, and nothing about real pictures. A picture is a
noisy ground of one colour with a few filled circles, squares and triangles on it, which may hide parts of each other.
Colours lean towards one of each kind (reddish, greenish, bluish), which is what makes seconds suffice.
"""

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from emberline.data.identity import Identity, of_arrays
from emberline.data.order import generator
from emberline.data.rows import Instance, Splits

KINDS = ("circle", "square", "triangle")

_COLOURS = np.array([[200, 70, 70], [70, 180, 70], [70, 90, 210]])  # of the kinds, on average
_SPREAD = 50  # of each channel around that
_NOISE = 12.0  # of each pixel's values, as a deviation
_SIDES = (0.2, 0.45)  # of a shape, as fractions of the picture's
_LEAST_CONTRAST = 70  # between a shape and the ground, in the channel that tells them apart best
_MOST_OVERLAP = 0.2  # of a box's area that another may take: what is hidden cannot be found
_TRIES = 20

Kind = Literal["boxes", "masks"]


class Shapes:
    """Rows of made-up pictures: PNG bytes, and either the objects' boxes or the pixels' classes (0 is the ground).

    Args:
        seed, size, most: as of `boxes`.
        first: number of the first picture; the picture of one number and seed is always the same.
        label: `boxes` as `emberline.data.targets` has them of detection, or `masks` as it has them of segmentation.
    """

    def __init__(self, label: Kind, first: int, count: int, *, seed: int, size: int, most: int) -> None:
        self._seed, self._first, self._count, self._size, self._most = seed, first, count, size, most
        self._label = label
        self._made: dict[int, tuple[bytes, NDArray[Any]]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Instance, NDArray[Any]]:
        if not 0 <= index < self._count:
            raise IndexError(f"row {index} of {self._count}")
        if index not in self._made:
            self._made[index] = self._make(self._first + index)
        picture, label = self._made[index]
        return {"image": picture}, label

    def digest(self) -> Identity:
        """What the pictures are known by; makes those that were not made yet."""
        made = [self[index] for index in range(len(self))]
        arrays = [(f"image {n}", np.frombuffer(instance["image"], np.uint8)) for n, (instance, _) in enumerate(made)]
        return of_arrays([*arrays, *((f"label {n}", label) for n, (_, label) in enumerate(made))], len(self))

    def _make(self, number: int) -> tuple[bytes, NDArray[Any]]:
        pixels, mask, objects = draw(generator(self._seed, number), self._size, self._most)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        return file.getvalue(), objects if self._label == "boxes" else mask


def boxes(
    *, seed: int = 0, train: int = 600, validation: int = 150, test: int = 150, size: int = 64, most: int = 3
) -> Splits:
    """Pictures with boxes: a recipe's data source for task detection, classes as in `KINDS`.

    Args:
        train, validation, test: pictures of each split.
        size: height and width in pixels.
        most: shapes in a picture, 1 to that many.
    """
    return _splits("boxes", (train, validation, test), seed=seed, size=size, most=most)


def masks(
    *, seed: int = 0, train: int = 600, validation: int = 150, test: int = 150, size: int = 64, most: int = 3
) -> Splits:
    """Pictures with masks: a recipe's data source for task segmentation, classes the ground and then `KINDS`.

    Args: as of `boxes`.
    """
    return _splits("masks", (train, validation, test), seed=seed, size=size, most=most)


def _splits(label: Kind, counts: tuple[int, int, int], *, seed: int, size: int, most: int) -> Splits:
    firsts = (0, counts[0], counts[0] + counts[1])
    return Splits(
        *(
            Shapes(label, first, count, seed=seed, size=size, most=most)
            for first, count in zip(firsts, counts, strict=True)
        )
    )


def draw(
    random: np.random.Generator, size: int, most: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """One picture: pixels (size, size, 3), classes (size, size), objects (M, 5) of class, left, top, right, bottom."""
    ground = random.integers(0, 256, 3)
    picture = Image.new("RGB", (size, size), tuple(ground.tolist()))
    mask = Image.new("L", (size, size), 0)
    objects: list[tuple[float, ...]] = []
    for _ in range(int(random.integers(1, most + 1))):
        kind, box, colour = _shape(random, size, ground)
        if any(_covered(box, other[1:], size) > _MOST_OVERLAP for other in objects):
            continue
        _fill(picture, kind, box, tuple(colour.tolist()))
        _fill(mask, kind, box, kind + 1)
        left, top, right, bottom = box
        # a filled shape has its last pixel inside, so its far sides are one further
        sides = (left / size, top / size, (right + 1) / size, (bottom + 1) / size)
        objects.append((kind, *sides))
    noise = random.normal(0, _NOISE, (size, size, 3))
    pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    return pixels, np.asarray(mask), np.asarray(objects, np.float32)


def _shape(
    random: np.random.Generator, size: int, ground: NDArray[np.int64]
) -> tuple[int, tuple[int, int, int, int], NDArray[np.int64]]:
    """Kind, box in whole pixels and colour."""
    kind = int(random.integers(len(KINDS)))
    for _ in range(_TRIES):
        colour = _COLOURS[kind] + random.integers(-_SPREAD, _SPREAD + 1, 3)
        if np.abs(colour - ground).max() >= _LEAST_CONTRAST:
            break
    side = int(random.uniform(*_SIDES) * size)
    left, top = random.integers(0, size - side, 2).tolist()
    return kind, (left, top, left + side - 1, top + side - 1), colour


def _fill(image: Image.Image, kind: int, box: tuple[int, int, int, int], colour: Any) -> None:
    drawing = ImageDraw.Draw(image)
    left, top, right, bottom = box
    if KINDS[kind] == "circle":
        drawing.ellipse(box, fill=colour)
    elif KINDS[kind] == "square":
        drawing.rectangle(box, fill=colour)
    else:
        drawing.polygon([(left, bottom), ((left + right) / 2, top), (right, bottom)], fill=colour)


def _covered(box: tuple[int, ...], other: tuple[float, ...], size: int) -> float:
    """The larger part of either box that the two share; `other` is in fractions of the picture."""
    one, two = np.add(box, (0, 0, 1, 1)), np.multiply(other, size)
    shared = np.clip(np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2]), 0, None).prod()
    return float(shared / min((one[2:] - one[:2]).prod(), (two[2:] - two[:2]).prod()))
