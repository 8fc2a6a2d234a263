"""Whether a package computes what its model computes: all outputs, at every batch size and several lengths of texts.

Legend of shapes: B rows, K outputs.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emberline import assets
from emberline.artifact import Package
from emberline.compress.context import Context
from emberline.compress.state import State
from emberline.data.tokens import Length
from emberline.errors import StageFailed

# largest relative error against the reference. A package of ours is held against the program it was compiled from, run
# by PyTorch: they round alike but for ties, whereas sums that saturate (int8 without VNNI) are 0.1 and more away. In a
# deep net of texts a tie that falls the other way moves what is rounded after it: there, the two may be apart by half
# of what rounding itself takes from the float model, to which the package must then be as close as its program. A
# backend with a quantizer of its own has only the float model as reference, and the accuracy gate beside it; so its
# batches are held against its own rows one by one as well, which may differ by what scales taken per batch round.
_SAME_FLOAT = 1e-3
_SAME_ROUNDED = 0.05
_OF_ROUNDING = 0.5
_AS_CLOSE = 1.1
_OWN_QUANTIZER = 0.5
_OWN_ROWS = 0.1

Outputs = list[NDArray[Any]]


class References:
    """What the packages of one state are held against, each batch size and length computed once for all of them."""

    def __init__(self, state: State, context: Context) -> None:
        self._state, self._context = state, context
        self._kept: dict[tuple[bool, int, Length], Outputs] = {}

    def answers(self, rows: int, at: Length, *, rounded: bool) -> Outputs:
        """Outputs of the float model, or of its program of lower precision (`rounded`), on `rows` validation rows."""
        if (rounded, rows, at) not in self._kept:
            lower = self._state.quantized if rounded else None
            program = self._state.model if lower is None else lower.module()
            with torch.no_grad():
                answer = program(*self._context.example(rows, at))
            outputs = assets.handler_module("ember_backends").outputs_of(answer)
            self._kept[rounded, rows, at] = [output.float().numpy() for output in outputs]
        return self._kept[rounded, rows, at]


def require_agreement(
    state: State, package: Package, folder: Path, context: Context, references: References | None = None
) -> float:
    """The largest relative error of any output over the recipe's batch sizes and the lengths of `lengths_served`.

    Raises:
        StageFailed: it is above what this kind of package may have, at the batch size, length and output named.
    """
    packages = assets.handler_module("ember_packages")
    program = packages.open_program(folder, package.model_dump(mode="json"), lambda _text: None)
    references = references or References(state, context)
    rounded = package.backend.startswith("aoti") and state.quantized is not None
    limit = _SAME_FLOAT if package.precision == "fp32" else _SAME_ROUNDED if rounded else _OWN_QUANTIZER
    worst = 0.0
    for rows, at in product(sizes_served(context, package.max_batch), lengths_served(context)):
        inputs = [tensor.numpy() for tensor in context.example(rows, at)]
        got = program(inputs)
        reference = references.answers(rows, at, rounded=rounded)
        error, where = largest_error(got, reference)
        worst, where = max(worst, error), f"{_told(context, inputs)}{where}"
        # the float model is asked only where it decides
        ties = rounded and error > limit and rounds_alike(got, reference, references.answers(rows, at, rounded=False))
        if not ties:
            _require(error, limit, f"its reference at batch {rows}{where}", package)
        if limit == _OWN_QUANTIZER:
            single = [program([array[row : row + 1] for array in inputs]) for row in range(rows)]
            together = [np.concatenate(outputs) for outputs in zip(*single, strict=True)]
            error, where = largest_error(got, together)
            where = f"{_told(context, inputs)}{where}"
            _require(error, _OWN_ROWS, f"its own answers row by row at batch {rows}{where}", package)
    return worst


def _require(error: float, limit: float, reference: str, package: Package) -> None:
    if error <= limit:
        return
    # also where it is NaN, which is no agreement either
    raise StageFailed(
        "export",
        f"{package.file} is {error:.3g} away from {reference}; {limit:g} is allowed",
        hint="int8 sums may saturate on this CPU; calibrate with more rows, or leave the quantize stage out"
        if package.precision == "int8"
        else "the backend computes something else than the model; leave it out of export.backends",
    )


def sizes_served(context: Context, max_batch: int) -> list[int]:
    """One row, the recipe's batch sizes and the largest one; what is larger still is served in pieces."""
    return sorted({min(size, max_batch) for size in (1, *context.settings.batch_sizes, max_batch)})


def lengths_served(context: Context) -> tuple[Length, ...]:
    """Of texts whose length is free: the least and the most tokens there may be, and as many as the rows have."""
    return ("least", "longest", "most") if any(context.bounds) else ("longest",)


def _told(context: Context, inputs: Outputs) -> str:
    free = [str(array.shape[1]) for array, one in zip(inputs, context.bounds, strict=True) if one is not None]
    return f", {' and '.join(free)} tokens" if free else ""


def rounds_alike(got: Outputs, rounded: Outputs, exact: Outputs) -> bool:
    """Whether two roundings of one float model are apart by no more than their ties explain, in every output."""
    if not len(got) == len(rounded) == len(exact):
        return False
    return all(_ties(*three) for three in zip(got, rounded, exact, strict=True))


def _ties(got: NDArray[Any], rounded: NDArray[Any], exact: NDArray[Any]) -> bool:
    own = relative_error(rounded, exact)
    return relative_error(got, rounded) <= _OF_ROUNDING * own and relative_error(got, exact) <= _AS_CLOSE * own


def largest_error(got: Outputs, expected: Outputs) -> tuple[float, str]:
    """Over all outputs, and which one it is where there are several; infinite for another number of them."""
    if len(got) != len(expected):
        return float("inf"), f" ({len(got)} outputs in place of {len(expected)})"
    errors = [relative_error(one, other) for one, other in zip(got, expected, strict=True)]
    # NaN would lose every comparison: it is the worst there is
    worst = max(range(len(errors)), key=lambda position: np.nan_to_num(errors[position], nan=np.inf))
    return errors[worst], f", output {worst}" if len(errors) > 1 else ""


def relative_error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Norm of the difference over the norm of what is expected; infinite for another shape."""
    if got.shape != expected.shape:
        return float("inf")
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    difference = float(np.linalg.norm(got.astype(np.float64) - expected.astype(np.float64)))
    return difference / norm if norm else difference
