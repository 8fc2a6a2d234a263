"""The Open Inference Protocol v2 as JSON: tensors by name in, tensors by name out.

TorchServe's own endpoint for it cannot name a version, so requests come in through the plain path with this body.

Shapes in the text: B rows, K outputs of a row.

Source: the protocol's REST specification, "Inference Request JSON Object" (github.com/kserve/open-inference-protocol).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ember_prediction import Prediction
from ember_preprocessing import InvalidInput, has_far_more, numbers

# BYTES are strings (base64 of images, text); the model's own input decides which numbers it takes
_INTEGERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
_DATATYPES = (*_INTEGERS, "FP16", "FP32", "FP64", "BYTES")
_KNOWN = {"id", "inputs", "outputs", "parameters"}
_MAX_DIMENSIONS = 32
_MAX_VALUES = 2**40  # no body holds so many, and indices reach that far on any machine


@dataclass(frozen=True)
class Call:
    """What a call carries besides its rows.

    Attributes:
        id: the client's own, given back; None when it sent none.
        outputs: names of the outputs wanted; empty means all.
    """

    id: str | None
    outputs: tuple[str, ...] = ()


def parse(body: Mapping[str, Any], max_rows: int) -> tuple[Call, Sequence[Mapping[str, Any]]]:
    """The call and its rows, one mapping of input values each.

    Raises:
        InvalidInput: names the input, and the key of it, that cannot be used.
    """
    for key in body:
        if key not in _KNOWN:
            raise InvalidInput(key, f"is no key of an inference request; known are {', '.join(sorted(_KNOWN))}")
    identity = body.get("id")
    if identity is not None and not (isinstance(identity, str) and is_text(identity)):
        raise InvalidInput("id", "a string is required")
    if not body["inputs"]:
        raise InvalidInput("inputs", "at least one input is required")
    columns: dict[str, Any] = {}
    for index, tensor in enumerate(body["inputs"]):
        name, rows = _column(tensor, f"inputs[{index}]", max_rows)
        if name in columns:
            raise InvalidInput(name, "is given twice")
        columns[name] = rows
    counts = {name: len(rows) for name, rows in columns.items()}
    if len(set(counts.values())) > 1:
        raise InvalidInput("inputs", f"their first dimensions differ: {counts}")
    return Call(identity, _outputs(body.get("outputs"))), [
        {name: rows[row] for name, rows in columns.items()} for row in range(next(iter(counts.values())))
    ]


def answer(call: Call, predictions: Sequence[Prediction], model: str, version: str) -> dict[str, Any]:
    """The response object: `scores` of shape [B, K] with `label` of shape [B], or `outputs` for a model without labels.

    Raises:
        InvalidInput: an output was asked for that the model does not have.
    """
    scores = np.stack([prediction.scores for prediction in predictions])
    labelled = predictions[0].label is not None
    tensors = [floats("scores" if labelled else "outputs", scores)]
    if labelled:
        labels = [prediction.label for prediction in predictions]
        tensors.append({"name": "label", "shape": [len(labels)], "datatype": "BYTES", "data": labels})
    return respond(call, tensors, model, version)


def respond(call: Call, tensors: Sequence[dict[str, Any]], model: str, version: str) -> dict[str, Any]:
    """The response object with those of the tensors that were asked for.

    Raises:
        InvalidInput: one was asked for that is not among them.
    """
    names = [tensor["name"] for tensor in tensors]
    for wanted in call.outputs:
        if wanted not in names:
            raise InvalidInput("outputs", f"{wanted!r} is no output of this model; it has {', '.join(names)}")
    response: dict[str, Any] = {"model_name": model, "model_version": version}
    if call.id is not None:
        response["id"] = call.id
    response["outputs"] = [tensor for tensor in tensors if not call.outputs or tensor["name"] in call.outputs]
    return response


def metadata(
    described: Mapping[str, Any], inputs: Sequence[tuple["np.dtype[Any]", tuple[int, ...]]], model: str, version: str
) -> dict[str, Any]:
    """The model metadata object: inputs as clients send them, outputs as `answer` names them; -1 stands for any size.

    Args:
        described: the archive's `artifact.json`.
        inputs: dtype and row shape of each input as the model takes it.
    """
    labels = described["labels"]
    named = "scores" if labels else "outputs"
    outputs = [{"name": named, "datatype": "FP32", "shape": [-1, len(labels)] if labels else [-1, -1]}]
    if labels:
        outputs.append({"name": "label", "datatype": "BYTES", "shape": [-1]})
    specs = described["preprocessing"]["inputs"]
    return {
        "name": model,
        "versions": [version],
        "platform": "pytorch_torchserve",
        "inputs": [_input_metadata(spec, dtype) for spec, (dtype, _shape_of) in zip(specs, inputs, strict=True)],
        "outputs": outputs,
    }


def _input_metadata(spec: Mapping[str, Any], dtype: "np.dtype[Any]") -> dict[str, Any]:
    if spec.get("kind", "tensor") != "tensor":  # base64 of an image, or a text: one string a row
        return {"name": spec["name"], "datatype": "BYTES", "shape": [-1]}
    sent = np.dtype(spec.get("dtype", dtype))
    kinds = {"f": "FP", "i": "INT", "u": "UINT"}
    datatype = f"{kinds[sent.kind]}{8 * sent.itemsize}"
    return {"name": spec["name"], "datatype": datatype, "shape": [-1, *spec.get("shape", ())]}


def is_text(value: str) -> bool:
    """Whether it can be given back: half a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def floats(name: str, array: "np.ndarray[Any, np.dtype[np.float32]]") -> dict[str, Any]:
    """A tensor of the response, its data flat."""
    return {"name": name, "shape": list(array.shape), "datatype": "FP32", "data": array.ravel()}


def _outputs(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(o, Mapping) and isinstance(o.get("name"), str) for o in value):
        raise InvalidInput("outputs", "a list of objects with a `name` is required")
    return tuple(output["name"] for output in value)


def _column(tensor: object, place: str, max_rows: int) -> tuple[str, Any]:
    """An input's name and its rows."""
    if not isinstance(tensor, Mapping):
        raise InvalidInput(place, "an object with name, shape, datatype and data is required")
    name, shape, datatype, data = (tensor.get(key) for key in ("name", "shape", "datatype", "data"))
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{place}.name", "a name is required")
    shape = _shape(name, shape, max_rows)
    if not isinstance(data, list):
        raise InvalidInput(f"{name}.data", "a list is required; binary tensors are not supported")
    if datatype == "BYTES":
        if len(shape) != 1 or len(data) != shape[0] or not all(isinstance(item, str) for item in data):
            raise InvalidInput(f"{name}.data", f"one string a row is required: {shape[0]} of them, shape [{shape[0]}]")
        return name, data
    if datatype not in _DATATYPES:
        raise InvalidInput(f"{name}.datatype", f"is {datatype!r}; one of {', '.join(_DATATYPES)} is required")
    return name, _numbers(name, shape, datatype, data)


def _shape(name: str, shape: object, max_rows: int) -> tuple[int, ...]:
    if (
        not isinstance(shape, list)
        or not shape
        or not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape)
    ):
        raise InvalidInput(f"{name}.shape", "a list of whole numbers, rows first, is required")
    if len(shape) > _MAX_DIMENSIONS:
        raise InvalidInput(f"{name}.shape", f"{len(shape)} dimensions; at most {_MAX_DIMENSIONS} are allowed")
    if not 1 <= shape[0] <= max_rows:
        raise InvalidInput(f"{name}.shape", f"{shape[0]} rows; from 1 to {max_rows} are allowed")
    if math.prod(shape) > _MAX_VALUES:
        raise InvalidInput(f"{name}.shape", f"asks for more than {_MAX_VALUES} values")
    return tuple(shape)


def _numbers(name: str, shape: tuple[int, ...], datatype: str, data: list[Any]) -> Any:
    """Flat or nested data as an array of the given shape; the model's own input decides on dtype and range later."""
    size = math.prod(shape)
    if has_far_more(data, size):
        raise InvalidInput(f"{name}.data", f"more than {size} values; shape {list(shape)} needs {size}")
    array = numbers(f"{name}.data", data)
    if array.size != size or (array.ndim != 1 and array.shape != shape):
        raise InvalidInput(
            f"{name}.data", f"{array.size} values of shape {list(array.shape)}; shape {list(shape)} needs {size}"
        )
    if datatype in _INTEGERS and array.dtype.kind == "f":
        raise InvalidInput(f"{name}.data", f"fractions in a tensor of datatype {datatype}")
    return array.reshape(shape)
