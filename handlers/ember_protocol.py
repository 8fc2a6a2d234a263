"""What a body asks for, and the bytes that answer it: TorchServe's plain JSON and the Open Inference Protocol v2.

Plain: `{"pixels": …}` asks for one prediction, `{"instances": [{"pixels": …}, …]}` for several; `ember_oip` has the
other protocol, known by `inputs` being a list. Answers are bytes: TorchServe would render a dict with `indent=2`.
"""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ember_oip
import orjson
from ember_oip import Call
from ember_prediction import Prediction
from ember_preprocessing import InvalidInput

MAX_ROWS = 4096
_TEXT = (bytes, bytearray, memoryview, str)
_MAX_QUOTED = 1000
# TorchServe drops a body whose content type says it is a form, which is what curl says unless told otherwise
EMPTY = "is empty; a JSON object is required, with content-type application/json"

Style = Literal["single", "instances", "oip"]


@dataclass(frozen=True)
class Request:
    """One request's instances, and how it wants to be answered.

    Attributes:
        instances: values by input name, as the client sent them; at least one.
        call: what the Open Inference Protocol adds; None in the other styles.
    """

    style: Style
    instances: Sequence[Mapping[str, Any]]
    call: Call | None = None

    def place(self, row: int, field: str) -> str:
        """How an error names a field of one of the instances."""
        return f"instances[{row}].{field}" if self.style == "instances" else field


def parse(body: object) -> Request:
    """A body, as bytes or as the object TorchServe already made of it.

    Raises:
        InvalidInput: no JSON, not one of the known forms, or no rows.
    """
    value = load_json(body)
    if not isinstance(value, Mapping):
        raise InvalidInput("body", f"a JSON {kind(value)}; an object is required")
    if not value:
        raise InvalidInput("body", "an empty object; the model's inputs are required")
    if isinstance(value.get("inputs"), list):
        call, instances = ember_oip.parse(value, MAX_ROWS)
        return Request("oip", instances, call)
    if "instances" in value:
        return Request("instances", _instances(value))
    return Request("single", (value,))


def render(request: Request, predictions: Sequence[Prediction], model: str, version: str) -> bytes:
    """The answer to a request, one prediction an instance."""
    if request.call is not None:
        return dump(ember_oip.answer(request.call, predictions, model, version))
    return render_plain(request, [prediction.as_json() for prediction in predictions])


def render_plain(request: Request, answers: Sequence[Any]) -> bytes:
    """Answers that are JSON already, one an instance, in the form in which a plain body asked for them."""
    return dump({"predictions": answers} if request.style == "instances" else answers[0])


def dump(answer: Any) -> bytes:
    """JSON of a value with arrays in it."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def render_error(text: str, field: str | None = None) -> bytes:
    """An error's body; what it quotes of the client is cut short."""
    error = {"error": _quotable(text)} if field is None else {"error": _quotable(text), "field": _quotable(field)}
    return orjson.dumps(error)


def _quotable(text: str) -> str:
    # Python's json lets half a surrogate pair through, which is no text that could be answered
    return text[:_MAX_QUOTED].encode("utf-8", "replace").decode()


def load_json(body: object) -> object:
    """The JSON value of a body; one that TorchServe decoded already is given back as it is."""
    if not isinstance(body, _TEXT):
        return body
    if not body:
        raise InvalidInput("body", EMPTY)
    collects = gc.isenabled()
    gc.disable()  # of a body of millions of lists it would look through all so far again and again
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("body", f"no JSON: {error}") from error
    finally:
        if collects:
            gc.enable()


def kind(value: object) -> str:
    """What JSON calls a value."""
    names = {list: "array", str: "string", bool: "boolean", type(None): "null", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def _instances(value: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    instances = value["instances"]
    extra = set(value) - {"instances"}
    if extra:
        raise InvalidInput(min(extra), "stands beside `instances`; inputs belong inside of each instance")
    if not isinstance(instances, list) or not instances:
        raise InvalidInput("instances", "a list of at least one object is required")
    if len(instances) > MAX_ROWS:
        raise InvalidInput("instances", f"{len(instances)} rows; at most {MAX_ROWS} are allowed")
    for row, instance in enumerate(instances):
        if not isinstance(instance, Mapping):
            raise InvalidInput(f"instances[{row}]", f"a JSON {kind(instance)}; an object of inputs is required")
    return instances
