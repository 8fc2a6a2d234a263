"""A batch of the right shape, made from the preprocessing's specification alone."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from emberline import assets
from emberline.recipe import Preprocessing

_IMAGE_SIDE = 256  # of an example image; the preprocessing's resize, if any, decides what the model sees


def example_inputs(preprocessing: Preprocessing, rows: int = 1) -> tuple[torch.Tensor, ...]:
    """Equal rows as the model takes them: values are each input's minimum, or zero."""
    shared = assets.handler_module("ember_preprocessing")
    instance = {spec.name: _value(spec.kind, spec.shape, spec.dtype, spec.minimum) for spec in preprocessing.inputs}
    one = shared.Preprocessing(preprocessing.model_dump(mode="json"))(instance)
    return tuple(torch.from_numpy(array) for array in shared.stack([one] * rows))


def _value(kind: str, shape: tuple[int, ...], dtype: str, minimum: float | None) -> Any:
    if kind == "tensor":
        return np.full(shape, minimum or 0, dtype=dtype)
    if kind == "text":
        return "example"
    file = io.BytesIO()
    Image.new("RGB", (_IMAGE_SIDE, _IMAGE_SIDE)).save(file, format="PNG")
    return file.getvalue()
