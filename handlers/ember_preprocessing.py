"""From what a client sends to what the model takes: the one definition, for trainer, calibration and handler alike.

The specification is data (the `preprocessing` of a recipe, kept in the artifact); this module gives each step its
meaning, in numpy, so that all three compute the same bytes.

Legend of shapes: B rows, H height, W width, C channels.
"""

import base64
import binascii
import io
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import ember_text
import numpy as np
from numpy.typing import NDArray
from PIL import Image

# decoding is a quarter of a second's work for that many, and a picture of more is a file of a few kB as well
MAX_IMAGE_PIXELS = 25_000_000
_EXACT = 2.0**53
_FLAT_ROWS = 2  # dimensions of rows of plain lists
_ANY_NUMBER = 1 << 62
_SURPLUS = 10_000  # values beyond those of a shape up to which a wrong shape is told as it is
_MAX_DEPTH = 32  # dimensions of an array, and a limit for lists in lists

Array = NDArray[Any]


class InvalidInput(Exception):
    """One row cannot be used; names the field and what is required of it."""

    def __init__(self, field: str, fact: str) -> None:
        self.field, self.fact = field, fact
        super().__init__(f"{field}: {fact}")


class Preprocessing:
    """Applies a specification `{"inputs": […], "steps": […]}`.

    The steps apply to the first input; further inputs go to the model as they are.
    """

    def __init__(self, specification: Mapping[str, Any]) -> None:
        self.specification = specification
        self.inputs: list[Mapping[str, Any]] = list(specification["inputs"])
        self.steps: list[Mapping[str, Any]] = list(specification.get("steps", ()))
        self.names = frozenset(spec["name"] for spec in self.inputs)

    def __call__(self, instance: Mapping[str, Any]) -> tuple[Array, ...]:
        """One row, input by input, ready to be stacked along a new first dimension.

        Raises:
            InvalidInput: a field is missing, unknown, of the wrong type or shape, not finite or out of range.
        """
        for name in instance:
            if name not in self.names:
                raise InvalidInput(name, f"is no input of this model; it takes {', '.join(sorted(self.names))}")
        arrays = [
            decode(spec, instance[spec["name"]]) if spec["name"] in instance else _missing(spec) for spec in self.inputs
        ]
        for step in self.steps:
            arrays[0] = _STEPS[step["op"]](arrays[0], step)
        return tuple(np.ascontiguousarray(array) for array in arrays)

    def together(self, instances: Sequence[Mapping[str, Any]]) -> tuple[Array, ...] | None:
        """All rows at once, one array an input: the very bytes that stacking each row alone gives, at a tenth the cost.

        None where that cannot be had: a row that must be refused, which only it alone can say why, or an input or step
        that goes row by row.
        """
        if any(len(instance) != len(self.inputs) for instance in instances):
            return None
        columns = []
        for spec in self.inputs:
            name = spec["name"]
            column = _column(spec, [instance.get(name) for instance in instances])
            if column is None:
                return None
            columns.append(column)
        for step in self.steps:
            apply = _BATCH_STEPS.get(step["op"])
            if apply is None or columns[0].ndim == 1:  # a row of one bare number has no last dimension
                return None
            columns[0] = apply(columns[0], step)
        # numpy makes one dimension of none where it makes a row contiguous
        return tuple(np.ascontiguousarray(one if one.ndim > 1 else one.reshape(-1, 1)) for one in columns)


def stack(rows: Sequence[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Rows to a batch: one array an input, rows along the first dimension."""
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def decode(spec: Mapping[str, Any], value: Any) -> Array:
    """A value as a client sent it, as an array of the input's dtype and shape."""
    kind = spec.get("kind")
    if kind == "image":
        return _decode_image(spec["name"], value)
    return _decode_text(spec, value) if kind == "text" else _decode_tensor(spec, value)


def _missing(spec: Mapping[str, Any]) -> Array:
    raise InvalidInput(spec["name"], "is required")


def _decode_tensor(spec: Mapping[str, Any], value: Any) -> Array:
    name, shape, dtype = spec["name"], tuple(spec.get("shape", ())), np.dtype(spec.get("dtype", "float32"))
    size = math.prod(shape)
    if has_far_more(value, size):
        raise InvalidInput(name, f"more than {size} values; shape {list(shape)} is required")
    array = numbers(name, value)
    if array.shape != shape:
        # one flat list of the right length is what many clients send, and a bare number where one is wanted
        if array.ndim > 1 or array.size != size:
            raise InvalidInput(name, f"shape is {list(array.shape)}; {list(shape)} is required")
        array = array.reshape(shape)
    least, most = array.min(), array.max()  # NaN if any is NaN, so these two stand for all
    if not (np.isfinite(least) and np.isfinite(most)):
        raise InvalidInput(name, "NaN or infinity; finite numbers are required")
    low, high = spec.get("minimum"), spec.get("maximum")
    if low is not None and least < low:
        raise InvalidInput(name, f"value {least:g} is below the minimum {low:g}")
    if high is not None and most > high:
        raise InvalidInput(name, f"value {most:g} is above the maximum {high:g}")
    result = _cast(name, array, dtype)
    # whole numbers beside fractions became float64, which would have changed them by now
    if dtype.kind in "iu" and array.dtype.kind == "f" and not _is_exact(least, most):
        raise InvalidInput(name, "numbers of 2**53 and more are among fractions; whole numbers alone are required")
    return result


def _column(spec: Mapping[str, Any], values: list[Any]) -> Array | None:
    """Values of one input of numbers, a row each, as `_decode_tensor` has them one by one; None as in `together`."""
    array = _regular(values, tuple(spec.get("shape", ()))) if spec.get("kind", "tensor") == "tensor" else None
    if array is None:
        return None
    low, high = spec.get("minimum"), spec.get("maximum")
    least, most = array.min(), array.max()
    if not _is_exact(least, most) or (low is not None and least < low) or (high is not None and most > high):
        return None
    try:
        return _cast(spec["name"], array, np.dtype(spec.get("dtype", "float32")))
    except InvalidInput:
        return None


def _is_exact(least: Any, most: Any) -> bool:
    """Whether whole numbers are what they were after they became float64 beside fractions; false for NaN."""
    return bool(least > -_EXACT and most < _EXACT)


def _regular(values: list[Any], shape: tuple[int, ...]) -> Array | None:
    """Rows of numbers as an array (B, *shape), None where they are not that; rows may be flat, but then all are."""
    if not _are_numbers(values, _MAX_DEPTH, len(values) * math.prod(shape)):
        return None
    try:
        array = np.asarray(values)
    except ValueError:
        return None
    if array.dtype.kind not in "iuf" or array.size == 0:
        return None
    if array.shape[1:] == shape:
        return array
    flat = array.ndim <= _FLAT_ROWS and array.size == len(values) * math.prod(shape)
    return array.reshape(len(values), *shape) if flat else None


def _decode_text(spec: Mapping[str, Any], value: Any) -> Array:
    name = spec["name"]
    if not isinstance(value, str):
        raise InvalidInput(name, "a string is required")
    if not value.strip():
        raise InvalidInput(name, "is empty; a text is required")
    if len(value) > ember_text.MAX_CHARACTERS:
        raise InvalidInput(name, f"{len(value)} characters; at most {ember_text.MAX_CHARACTERS} are allowed")
    try:
        return ember_text.tokenize(spec, value)
    except UnicodeEncodeError as error:
        raise InvalidInput(name, "half a surrogate pair; valid Unicode is required") from error


def numbers(field: str, value: Any) -> Array:
    """Numbers in lists, however deep, as an array of the dtype they have by themselves; never of none.

    Raises:
        InvalidInput: there is something else than numbers among them, or their shape is not regular.
    """
    # looked at before numpy does: of one long string among many short ones it makes an array of their product
    if not _are_numbers(value, _MAX_DEPTH):
        raise InvalidInput(field, "numbers are required")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInput(field, "rows of unequal length; numbers in a regular shape are required") from error
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise InvalidInput(field, "numbers are required")
    return array


def has_far_more(value: Any, most: int) -> bool:
    """Whether lists hold far more than `most` values, at any depth; looks at no more of them than it takes to tell."""
    most += _SURPLUS
    level: Sequence[Any] = value if isinstance(value, list | tuple) else ()
    for _ in range(_MAX_DEPTH):
        if len(level) > most:
            return True
        if set(map(type, level)).isdisjoint((list, tuple)):  # the usual: one flat list
            return False
        level = list(islice(chain.from_iterable(one for one in level if isinstance(one, list | tuple)), most + 1))
    return False


def _are_numbers(value: Any, depth: int, most: int = _ANY_NUMBER) -> bool:
    """Whether lists hold numbers and arrays alone, `most` of them; clients cannot send arrays, data sources may."""
    if not isinstance(value, list | tuple):
        return hasattr(value, "__array__") or (isinstance(value, int | float) and not isinstance(value, bool))
    level: Sequence[Any] = value
    for left in range(depth, -1, -1):  # a level at a time, as long as a level holds lists alone: most do
        if len(level) > most:
            return False
        kinds = set(map(type, level))
        if kinds <= {int, float}:
            return True
        if not kinds <= {list, tuple}:
            return left > 0 and all(_are_numbers(one, left - 1, most) for one in level)
        level = list(islice(chain.from_iterable(level), most + 1))
    return False


def _cast(name: str, array: Array, dtype: "np.dtype[Any]") -> Array:
    """To the input's dtype; what that would change beyond rounding is refused."""
    if array.dtype == dtype:
        return array
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            result = array.astype(dtype)
        if not (np.isfinite(result.min()) and np.isfinite(result.max())):
            raise InvalidInput(name, f"a value does not fit {dtype.name}")
        return result
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        raise InvalidInput(name, "whole numbers are required")
    with np.errstate(invalid="ignore", over="ignore"):
        result = array.astype(dtype)
        # there and back: a float of 2**63 compares equal to the largest int64, so limits alone would let it wrap
        kept = np.array_equal(result.astype(array.dtype), array) and not np.any((result < 0) != (array < 0))
    if not kept:
        raise InvalidInput(name, f"a value does not fit {dtype.name}")
    return result


def _decode_image(name: str, value: Any) -> Array:
    """JPEG or PNG bytes, or base64 of them, to uint8 of shape (H, W, 3)."""
    content = _image_bytes(name, value)
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            pixels = image.width * image.height
            if pixels <= MAX_IMAGE_PIXELS:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # hostile bytes make Pillow's parsers raise anything: struct, zlib, index errors
        raise InvalidInput(name, "no image that can be decoded; JPEG or PNG is required") from error
    raise InvalidInput(name, f"{pixels} pixels; at most {MAX_IMAGE_PIXELS} are allowed")


def image_size(name: str, value: Any) -> tuple[int, int]:
    """Height and width of an image that could be decoded; its pixels are not looked at."""
    with Image.open(io.BytesIO(_image_bytes(name, value)), formats=("JPEG", "PNG")) as image:
        return image.height, image.width


def _image_bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        text = value.partition(",")[2] if value.startswith("data:") else value
        try:
            # tools such as `base64` break lines
            value = base64.b64decode("".join(text.split()) if "\n" in text else text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(name, "no base64; JPEG or PNG bytes, or base64 of them, are required") from error
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidInput(name, f"{type(value).__name__}; JPEG or PNG bytes, or base64 of them, are required")
    return bytes(value)


def _scale(array: Array, step: Mapping[str, Any]) -> Array:
    return (array.astype(np.float32) * np.float32(step["by"])).astype(np.float32)


def _normalise(array: Array, step: Mapping[str, Any]) -> Array:
    """Mean and deviation per last dimension, or one for all."""
    mean, std = np.asarray(step["mean"], np.float32), np.asarray(step["std"], np.float32)
    return ((array.astype(np.float32) - mean) / std).astype(np.float32)


def _reshape(array: Array, step: Mapping[str, Any]) -> Array:
    return array.reshape(tuple(step["shape"]))


def _resize(array: Array, step: Mapping[str, Any]) -> Array:
    """uint8 (H, W, C) to the step's (height, width), bilinear as Pillow does it."""
    height, width = step["size"]
    if array.shape[:2] == (height, width):
        return array
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))


def _channels_first(array: Array, _step: Mapping[str, Any]) -> Array:
    return np.moveaxis(array, -1, 0)


_STEPS = {
    "scale": _scale,
    "normalise": _normalise,
    "reshape": _reshape,
    "resize": _resize,
    "channels_first": _channels_first,
}

# of these a whole batch gives what its rows give one by one: they work on single numbers or on the last dimension
_BATCH_STEPS: dict[str, Callable[[Array, Mapping[str, Any]], Array]] = {
    "scale": _scale,
    "normalise": _normalise,
    "reshape": lambda array, step: array.reshape(len(array), *step["shape"]),
    "channels_first": lambda array, _step: np.moveaxis(array, -1, 1),
}
