"""The probe: a row of validation data with the answer that a healthy package gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emberline import assets
from emberline.artifact import Package, Probe
from emberline.compress.context import Context
from emberline.compress.state import State
from emberline.data.rows import in_json
from emberline.recipe import Preprocessing, Task

# beyond the largest difference any package of the chain showed here: another CPU sums in another order
_ROOM = 2.0
_FLOOR = 1e-3
_SURE = 0.5  # of the probe's objects, those that each package of the chain must find


def make_probe(state: State, packages: tuple[Package, ...], folder: Path, context: Context) -> Probe:
    """The validation row the model answers best (the first of equals), what the float model says of it, and how far
    packages are off.

    The tolerance covers the whole chain (a float package must pass the probe of an int8 artifact), and not much more.
    Every output has one of its own.
    """
    (inputs, _), loader = context.validation, assets.handler_module("ember_packages")
    row = int(context.quality(state.model).argmax())
    asked = context.cut(tuple(array[row : row + 1] for array in inputs))
    with torch.no_grad():
        answer = state.model(*[torch.from_numpy(array) for array in asked])
    outputs = assets.handler_module("ember_backends").outputs_of(answer)
    expected = [output.numpy().reshape(-1) for output in outputs]
    worst = np.zeros(len(expected))
    for package in packages:
        program = loader.open_program(folder, package.model_dump(mode="json"), lambda _text: None)
        # the loader asks twice where tokens are free: as they are, and padded to the most
        for given in (asked, tuple(array[row : row + 1] for array in inputs)):
            got = program([np.ascontiguousarray(array) for array in given])
            apart = [float(np.abs(one.reshape(-1) - wanted).max()) for one, wanted in zip(got, expected, strict=True)]
            worst = np.maximum(worst, apart)
    first, *more = [
        float(_ROOM * apart + _FLOOR * np.abs(wanted).max()) for apart, wanted in zip(worst, expected, strict=True)
    ]
    instance, _ = context.splits.validation[row]
    recipe = context.recipe
    return Probe(
        instance={name: _json_ready(value) for name, value in instance.items()},
        expected=tuple(float(value) for value in expected[0]),
        tolerance=first,
        more_expected=tuple(tuple(float(value) for value in one) for one in expected[1:]),
        more_tolerance=tuple(more),
        answer=answer_of(recipe.train.task, recipe.preprocessing, recipe.labels, outputs[0][0].numpy(), instance),
    )


def answer_of(
    task: Task, preprocessing: Preprocessing, labels: Sequence[str], output: NDArray[Any], instance: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What a handler makes of one row's output, or what of it stands for the rest; None where it tells the outputs."""
    if task == "detection":
        boxes, name = assets.handler_module("ember_boxes"), preprocessing.inputs[0].name
        size = assets.handler_module("ember_preprocessing").image_size(name, instance[name])
        return {"detections": boxes.to_json(boxes.detect(output, _SURE), size, labels)}
    if task == "segmentation":
        masks = assets.handler_module("ember_masks")
        shares = masks.shares(masks.classes_of(output), len(labels))
        return {"shares": dict(zip(labels, shares.tolist(), strict=True))}
    return None


def _json_ready(value: Any) -> Any:
    return np.asarray(in_json(value)).tolist()
