"""Ranking: many items for one context in one request, the best of them back, best first.

    {"context": {"age": 31}, "items": [{"id": "a", "price": 3.0}, …], "top": 25}
    {"ranking": [{"index": 7, "id": "h", "score": 2.4}, …]}

An item's row is its own inputs and the context's. Its score is the model's last output: the only one of a regressor,
the probability of the last class of a classifier. Other bodies are answered as by every handler, row by row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ember_protocol
import numpy as np
import orjson
from ember_handler import EmberHandler
from ember_oip import is_text
from ember_prediction import Prediction, Predictions
from ember_preprocessing import InvalidInput

_KEYS = {"context", "items", "top"}
_LEAST_ID, _MOST_ID = -(2**63), 2**64 - 1  # what orjson writes


@dataclass(frozen=True)
class Ranking(ember_protocol.Request):
    """A request for a ranking.

    Attributes:
        ids: of the items, as the client has them; None where it sent none.
        shared: names of the context's inputs.
        top: how many are wanted.
    """

    ids: Sequence[Any] = ()
    shared: frozenset[str] = frozenset()
    top: int = 0

    def place(self, row: int, field: str) -> str:
        return f"context.{field}" if field in self.shared else f"items[{row}].{field}"


class EmberRanking(EmberHandler):
    """Takes rankings besides what every handler takes."""

    def body(self, body: Any) -> ember_protocol.Request:
        value = ember_protocol.load_json(body)
        if isinstance(value, Mapping) and "items" in value and "items" not in self.preprocessing.names:
            return parse(value, self.preprocessing.names)
        return super().body(value)

    def render(
        self, request: ember_protocol.Request, predictions: Sequence[Prediction], model: str, version: str
    ) -> bytes:
        if not isinstance(request, Ranking):
            return super().render(request, predictions, model, version)
        return orjson.dumps({"ranking": rank(request, predictions)})


def parse(value: Mapping[str, Any], inputs: frozenset[str]) -> Ranking:
    """A ranking's body.

    Raises:
        InvalidInput: names the key that cannot be used.
    """
    for key in value:
        if key not in _KEYS:
            raise InvalidInput(key, "stands beside `items`; what all items share belongs inside of `context`")
    context, items = value.get("context", {}), value["items"]
    if not isinstance(context, Mapping):
        raise InvalidInput("context", f"a JSON {ember_protocol.kind(context)}; an object of inputs is required")
    if not isinstance(items, list) or not 1 <= len(items) <= ember_protocol.MAX_ROWS:
        raise InvalidInput("items", f"a list of 1 to {ember_protocol.MAX_ROWS} objects is required")
    top = value.get("top", len(items))
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise InvalidInput("top", "a whole number of at least 1 is required")
    rows, ids = [], []
    for number, item in enumerate(items):
        if type(item) is not dict and not isinstance(item, Mapping):  # the first is what JSON gives, and quicker
            raise InvalidInput(f"items[{number}]", f"a JSON {ember_protocol.kind(item)}; an object is required")
        if context and (doubled := context.keys() & item.keys()):
            raise InvalidInput(f"items[{number}].{min(doubled)}", "is in `context` too; one of the two is required")
        row = {**context, **item}
        ids.append(_id(number, row.pop("id")) if "id" in item and "id" not in inputs else None)
        rows.append(row)
    return Ranking("instances", rows, ids=ids, shared=frozenset(context), top=top)


def _id(number: int, value: object) -> str | int | None:
    """An item's id, which must be one that an answer can hold.

    Raises:
        InvalidInput: it is not.
    """
    if value is None or (isinstance(value, str) and is_text(value)):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _LEAST_ID <= value <= _MOST_ID:
        return value
    raise InvalidInput(f"items[{number}].id", "text or a whole number of 64 bits is required")


def rank(request: Ranking, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The best items, best first; equal ones in the order they were sent.

    One that more models of a cascade looked at stands before one that fewer did: their scores do not compare.
    """
    if isinstance(predictions, Predictions):
        scores, passes = predictions.relevances, predictions.passes
    else:  # a user's own
        scores = np.array([prediction.scores.item(-1) for prediction in predictions], np.float32)
        passes = np.array([prediction.passes for prediction in predictions])
    order = np.lexsort((-scores, -passes))  # stable: ties stay as they were sent
    found = []
    for row in order[: request.top].tolist():
        entry: dict[str, Any] = {"index": row, "score": float(scores[row])}
        if request.ids[row] is not None:
            entry["id"] = request.ids[row]
        found.append(entry)
    return found
