"""Lines to paste into a shell that really work against the stack, made from the recipe's own inputs. Pure."""

import orjson

from emberline.recipe import Input, Recipe
from emberline.up.settings import Settings


def example_value(spec: Input) -> object:
    """A value the input accepts: the middle of its range, in its shape."""
    low = 0.0 if spec.minimum is None else spec.minimum
    high = low + 1.0 if spec.maximum is None else spec.maximum
    middle = (low + high) / 2
    whole = spec.dtype != "float32" or middle.is_integer()  # 8 reads better than 8.0, and JSON knows no difference
    value: object = int(middle) if whole else middle
    for length in reversed(spec.shape):
        value = [value] * length
    return value


def curl_lines(settings: Settings, recipe: Recipe) -> list[str]:
    """How to ask for a prediction, plainly and by the Open Inference Protocol."""
    assert recipe.archive is not None  # noqa: S101 - the stack was started with archives
    base, model = f"http://127.0.0.1:{settings.port}", recipe.archive.model
    head = "curl -s -H 'x-unit-id: you'"
    as_json = "-H 'content-type: application/json'"
    inputs = recipe.preprocessing.inputs
    if inputs[0].kind == "image":
        return [f"{head} --data-binary @photo.jpg -H 'content-type: image/jpeg' {base}/predictions/{model}"]
    plain = orjson.dumps({spec.name: example_value(spec) for spec in inputs}).decode()
    infer = orjson.dumps({"inputs": [_oip(spec) for spec in inputs]}).decode()
    return [
        f"{head} {as_json} {base}/predictions/{model} -d '{plain}'",
        f"{head} {as_json} {base}/v2/models/{model}/infer -d '{infer}'",
    ]


def page_address(settings: Settings) -> str:
    """The page on which experiments are followed."""
    return f"http://127.0.0.1:{settings.port}/dashboard/"


def _oip(spec: Input) -> dict[str, object]:
    datatype = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}[spec.dtype]
    flat: object = example_value(spec)
    while isinstance(flat, list) and isinstance(flat[0], list):
        flat = [item for inner in flat for item in inner]
    return {"name": spec.name, "shape": [1, *spec.shape], "datatype": datatype, "data": flat}
