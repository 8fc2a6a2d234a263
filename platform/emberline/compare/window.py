"""What rollout keeps in a file for as long as an experiment's configuration stays: readers take it, or nothing."""

from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import ValidationError

from emberline.experiment import Experiment
from emberline.paper import Frozen


class OfWindow(Frozen):
    """Belongs to one configuration of an experiment."""

    config_version: str


Kept = TypeVar("Kept", bound=OfWindow)


def read_of_window(path: Path, kind: type[Kept], experiment: Experiment) -> Kept | None:
    """Of the experiment's window; None where nothing was kept in it."""
    if experiment.window is None or not path.is_file():
        return None
    try:
        found = kind.model_validate(orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, ValidationError):  # of another release: begun anew from here on
        return None
    return found if found.config_version == experiment.window.config_version else None


Number = TypeVar("Number", int, float)


def counted_since(counter: Number, before: Number) -> Number:
    """What a counter or clock went up by; one that fell is of something restarted, which began at 0."""
    return counter - before if counter >= before else counter


def variant_of(key: str) -> str:
    """Of `variant`, of `variant#1`, the counter of a router's second process, or of `variant/worker`, a clock."""
    return key.partition("#")[0].partition("/")[0]
