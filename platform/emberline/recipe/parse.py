"""A mapping read by one of the models; the first thing wrong becomes one clear error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from emberline.misfit import told
from emberline.recipe.fields import PATTERNS

M = TypeVar("M", bound=BaseModel)


def parse_model(model: type[M], raw: Mapping[str, Any], place: Path) -> M:
    """Validates a mapping; the first thing wrong becomes one clear error that names file and key."""
    try:
        return TypeAdapter(model).validate_python(raw)
    except ValidationError as error:
        raise told(error, model, raw, place, PATTERNS) from None
