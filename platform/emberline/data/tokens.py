"""Texts as long as a batch's longest: which inputs' tokens are free, within which bounds, and batches cut to lengths.

Rows are decoded padded to their input's `length`, one shape for all; what a model or package is given is cut.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emberline import assets
from emberline.artifact import Tokens
from emberline.recipe import Preprocessing

# shorter batches are padded to this: windows of several words (convolutions) fit, and one token would cost as much
_LEAST = 8

Length = Literal["longest", "least", "middle", "most"]
Bounds = Sequence[Tokens | None]


def free_tokens(preprocessing: Preprocessing) -> dict[str, Tokens]:
    """Inputs of text whose number of tokens is free, by name.

    One of at most 8 tokens is always padded to its length, and so is one that the preprocessing's steps change, since
    these know of no padding.
    """
    changed = preprocessing.inputs[0].name if preprocessing.steps else None
    return {
        spec.name: Tokens(least=_LEAST, most=spec.length)
        for spec in preprocessing.inputs
        if spec.length is not None and spec.length > _LEAST and spec.padding != "length" and spec.name != changed
    }


def bounds_of(preprocessing: Preprocessing) -> Bounds:
    """Of each input how many tokens a batch may have; None where its rows are all of one shape."""
    free = free_tokens(preprocessing)
    return [free.get(spec.name) for spec in preprocessing.inputs]


def cut(arrays: Sequence[NDArray[Any]], bounds: Bounds, at: Length = "longest") -> tuple[NDArray[Any], ...]:
    """Rows without what is padding in all of them, or cut to another length; contiguous."""
    return tuple(
        np.ascontiguousarray(array if one is None else array[:, : _tokens(array, one, at)])
        for array, one in zip(arrays, bounds, strict=True)
    )


def _tokens(ids: NDArray[Any], one: Tokens, at: Length) -> int:
    if at == "longest":
        return int(assets.handler_module("ember_text").longest(ids, one.least))
    return {"least": one.least, "middle": (one.least + one.most + 1) // 2, "most": one.most}[at]
