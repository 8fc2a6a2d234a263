"""The probe: a row of validation data with the answer that a healthy package gives."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emberline import assets
from emberline.artifact import Package, Probe
from emberline.compress.context import Context
from emberline.compress.state import State

# beyond the largest difference any package of the chain showed here: another CPU sums in another order
_ROOM = 2.0
_FLOOR = 1e-3


def make_probe(state: State, packages: tuple[Package, ...], folder: Path, context: Context) -> Probe:
    """The first validation row the model gets right, what the float model says of it, and how far packages are off.

    The tolerance covers the whole chain (a float package must pass the probe of an int8 artifact), and not much more.
    Every output has one of its own.
    """
    (inputs, _), loader = context.validation, assets.handler_module("ember_packages")
    right = np.flatnonzero(context.correct(state.model))
    row = int(right[0]) if right.size else 0
    with torch.no_grad():
        answer = state.model(*[torch.from_numpy(array[row : row + 1]) for array in inputs])
    outputs = assets.handler_module("ember_backends").outputs_of(answer)
    expected = [output.numpy().reshape(-1) for output in outputs]
    worst = np.zeros(len(expected))
    for package in packages:
        program = loader.open_program(folder, package.model_dump(mode="json"), lambda _text: None)
        got = program([array[row : row + 1] for array in inputs])
        apart = [float(np.abs(one.reshape(-1) - wanted).max()) for one, wanted in zip(got, expected, strict=True)]
        worst = np.maximum(worst, apart)
    first, *more = [
        float(_ROOM * apart + _FLOOR * np.abs(wanted).max()) for apart, wanted in zip(worst, expected, strict=True)
    ]
    instance, _ = context.splits.validation[row]
    return Probe(
        instance={name: _json_ready(value) for name, value in instance.items()},
        expected=tuple(float(value) for value in expected[0]),
        tolerance=first,
        more_expected=tuple(tuple(float(value) for value in one) for one in expected[1:]),
        more_tolerance=tuple(more),
    )


def _json_ready(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    return np.asarray(value).tolist()
