"""Spans of time as people write them: 90s, 10m, 2h or 7d."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from emberline.errors import InvalidOption

_AS_DURATION = "a number with s, m, h or d: 90s, 10m, 2h or 7d"
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError("a duration such as 90s, 2h or 7d is required")


def parse_duration(text: str, place: str, *, above: float | None = None) -> float:
    """Seconds of an option such as 90s, 10m, 2h or 7d.

    Raises:
        InvalidOption: it is none, or not above `above`.
    """
    try:
        found = float(_seconds(text))
    except ValueError as error:
        raise InvalidOption("command line", place, text, "a duration", hint=_AS_DURATION) from error
    if above is not None and found <= above:
        raise InvalidOption("command line", place, text, f"a duration above {above:g}", hint=_AS_DURATION)
    return found


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
"""Seconds, written in YAML as 90s, 10m, 2h or 7d."""
