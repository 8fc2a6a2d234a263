"""What pydantic found wrong with a mapping, as one error in this project's words; the hint says what the key is for."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from emberline.errors import InvalidCombination, InvalidSetting, MissingKey, UnknownKey

Location = tuple[int | str, ...]

_KINDS = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "a text",
    "model_type": "a mapping of keys to values", "dict_type": "a mapping of keys to values",
    "dataclass_type": "a mapping of keys to values", "model_attributes_type": "a mapping of keys to values",
    "tuple_type": "a list", "list_type": "a list",
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "{} or less"),
    "too_short": ("min_length", "at least {} of them"),
    "too_long": ("max_length", "at most {} of them"),
    "string_too_short": ("min_length", "at least {} characters"),
    "string_too_long": ("max_length", "at most {} characters"),
}


def told(
    error: ValidationError, model: type[BaseModel], raw: Mapping[str, Any], place: Path, patterns: Mapping[str, str]
) -> InvalidSetting:
    """The first thing wrong, with the file and key that is wrong.

    Args:
        patterns: what a regular expression of the model asks for, in words.
    """
    found = error.errors()
    first = found[0]
    key, kind, got = key_of(raw, first), first["type"], first["input"]
    message = first["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return UnknownKey(place, key, _known_keys(model, first["loc"][:-1]))
    if kind == "missing":
        siblings = f"keys there: {', '.join(_known_keys(model, first['loc'][:-1]))}"
        return MissingKey(place, key, hint=_hint(model, first["loc"]) or siblings)
    if kind == "value_error" and isinstance(got, dict | list):
        return InvalidCombination(place, key, message)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        key = "{}.{}".format(key, first["ctx"]["discriminator"].strip("'"))
        if kind == "union_tag_not_found":
            return MissingKey(place, key, hint="it says which keys can stand beside it")
        return InvalidSetting(place, key, first["ctx"]["tag"], f"one of {first['ctx']['expected_tags']}")
    asked = dict.fromkeys(_required(one, patterns) for one in found if key_of(raw, one) == key)
    return InvalidSetting(place, key, got, " or ".join(asked), hint=_hint(model, first["loc"]))


def key_of(raw: object, error: Mapping[str, Any]) -> str:
    """The key as a person writes it: pydantic's location without its names for one of several types."""
    parts: list[str] = []
    node = raw
    for number, part in enumerate(error["loc"]):
        is_item = isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)
        if is_item or (isinstance(node, dict) and part in node):
            node = node[part]  # type: ignore[index]
        elif error["type"] != "missing" or number + 1 < len(error["loc"]):
            continue
        parts.append(str(part))
    return ".".join(parts) or "the file"


def _required(error: Mapping[str, Any], patterns: Mapping[str, str]) -> str:
    """What pydantic asks for, without its own words for containers, models and numbers."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return patterns.get(context["pattern"], f"a match for {context['pattern']}")
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        bound = context[name]
        return text.format(f"{bound:g}" if isinstance(bound, float) else bound)
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return _KINDS.get(kind) or message.partition(", unable to parse")[0].removesuffix(" is required")


def _hint(model: type[BaseModel], location: Location) -> str | None:
    """What the key is for, and what stands without it."""
    field = _field(model, location)
    if field is None:
        return None
    said = re.sub(r"\s+", " ", (field.description or "").replace("`", "")).strip().rstrip(".")
    default = field.default
    plain = isinstance(default, str | int | float | bool) and default != ""
    taken = f"without it, {str(default).lower() if isinstance(default, bool) else default} is taken" if plain else ""
    keys = [key for one in _models_in(field.annotation) for key in one.model_fields]
    return "; ".join(filter(None, (said, taken))) or (f"its keys: {', '.join(keys)}" if keys else None)


def _field(model: type[BaseModel], location: Location) -> FieldInfo | None:
    """The field at a location; of several models that could stand there, the one that the location names."""
    models, field = [model], None
    for part in location:
        holder = next((one for one in models if part in one.model_fields), None)
        if holder is not None:
            field = holder.model_fields[str(part)]
            models = _models_in(field.annotation)
        elif field is not None:  # a key of a mapping, an index, or pydantic's name for one of several types
            models = [one for one in models if one.__name__.lower() == str(part)] or models
    return field


def _known_keys(model: type[BaseModel], location: Location) -> tuple[str, ...]:
    """Keys of the model at a location: all keys of models that could stand there, found by name alone."""
    names: set[str] = set()
    pending: list[Any] = [model]
    seen: set[Any] = set()
    found: list[type[BaseModel]] = [model] if not location else []
    wanted = next((part for part in reversed(location) if isinstance(part, str)), None)
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for name, info in current.model_fields.items():
            for inner in _models_in(info.annotation):
                pending.append(inner)
                if name == wanted or inner.__name__.lower() == str(wanted).lower():
                    found.append(inner)
    for one in found or list(seen):
        names.update(one.model_fields)
    return tuple(sorted(names))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]
