"""Whether a package computes what its model computes, at every batch size that will be served.

Legend of shapes: B rows, K outputs.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emberline import assets
from emberline.artifact import Package
from emberline.compress.context import Context
from emberline.compress.state import State
from emberline.errors import StageFailed

# largest relative error against the reference. An int8 package is held against the int8 program run in floating point:
# they round alike but for ties, whereas sums that saturate (int8 without VNNI) are 0.1 and more away. A backend with a
# quantizer of its own has only the float model as reference, and the accuracy gate beside it.
_SAME_FLOAT = 1e-3
_SAME_INT8 = 0.05
_OWN_QUANTIZER = 0.25


def require_agreement(state: State, package: Package, folder: Path, context: Context) -> float:
    """The largest relative error over the recipe's batch sizes.

    Raises:
        StageFailed: it is above what this kind of package may have, at the batch size named.
    """
    packages = assets.handler_module("ember_packages")
    program = packages.open_program(folder, package.model_dump(mode="json"), lambda _text: None)
    own_reference = package.backend == "aoti" and state.quantized is not None
    reference = state.quantized.module() if own_reference and state.quantized is not None else state.model
    limit = _SAME_FLOAT if package.precision == "fp32" else _SAME_INT8 if own_reference else _OWN_QUANTIZER
    worst = 0.0
    for batch_size in sorted({1, *context.settings.batch_sizes, package.max_batch}):
        size = min(batch_size, package.max_batch)  # larger ones are served in pieces
        example = context.example(size)
        with torch.no_grad():
            answer = reference(*example)
        expected = (answer[0] if isinstance(answer, tuple | list) else answer).numpy()
        got = program([tensor.numpy() for tensor in example])[0]
        error = relative_error(got, expected)
        worst = max(worst, error)
        if not error <= limit:  # NaN is no agreement either
            raise StageFailed(
                "export",
                f"{package.file} is {error:.3g} away from its reference at batch {size}; {limit:g} is allowed",
                hint="int8 sums may saturate on this CPU; calibrate with more rows, or leave the quantize stage out"
                if package.precision == "int8"
                else "the backend computes something else than the model; leave it out of export.backends",
            )
    return worst


def relative_error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Norm of the difference over the norm of what is expected; infinite for another shape."""
    if got.shape != expected.shape:
        return float("inf")
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    difference = float(np.linalg.norm(got.astype(np.float64) - expected.astype(np.float64)))
    return difference / norm if norm else difference
