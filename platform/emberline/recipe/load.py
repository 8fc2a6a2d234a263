"""A recipe from its file, with `--set` laid over it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emberline.errors import InvalidFile, InvalidSetting, MissingFile
from emberline.misfit import key_of
from emberline.recipe.parse import parse_model
from emberline.recipe.recipe import Recipe
from emberline.recipe.settings import overlay
from emberline.recipe.yamlfile import read_yaml


def load_recipe(path: Path, settings: Iterable[str] = ()) -> Recipe:
    """Reads a recipe, with `key.path=value` settings laid over it (values are YAML, typed by the models).

    Raises:
        MissingFile, UnknownKey, InvalidSetting: with the file and key that is wrong.
    """
    if not path.exists():
        raise MissingFile(path, "the recipe", hint="emberline ships recipes/digits.yaml")
    return _with_tokenizers(parse_model(Recipe, lay_over(path, tuple(settings)), path), path)


def lay_over(path: Path, settings: tuple[str, ...]) -> dict[str, Any]:
    """The recipe's mapping under settings; where the model wants a text it is the text as written: `1.2`, a version."""
    raw = overlay(read_yaml(path), settings)
    if not settings:
        return raw
    try:
        Recipe.model_validate(raw)
    except ValidationError as error:  # whatever else is wrong is told when the mapping is parsed
        written = {key: text for key, _, text in (one.partition("=") for one in settings)}
        texts = {key_of(raw, one) for one in error.errors() if one["type"] == "string_type"} & written.keys()
        return overlay(raw, [f"{key}={json.dumps(written[key])}" for key in texts])
    return raw


def _with_tokenizers(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with the content of each `tokenizer.json` in place of its path: it travels with the artifact."""
    inputs = []
    for number, spec in enumerate(recipe.preprocessing.inputs):
        if not isinstance(spec.tokenizer, str) or spec.tokenizer in ("bytes", "words"):
            inputs.append(spec)
            continue
        file = path.parent / spec.tokenizer
        if not file.is_file():
            key = f"preprocessing.inputs.{number}.tokenizer"
            hint = f"{file} is not there; the path counts from the recipe's folder"
            required = "bytes, words, or a tokenizer.json beside the recipe,"
            raise InvalidSetting(path, key, spec.tokenizer, required, hint=hint)
        try:
            content = json.loads(file.read_bytes())
        except ValueError as error:
            raise InvalidFile(file, "no JSON", hint="the file that the library tokenizers saves is read") from error
        inputs.append(spec.model_copy(update={"tokenizer": content}))
    preprocessing = recipe.preprocessing.model_copy(update={"inputs": tuple(inputs)})
    return recipe.model_copy(update={"preprocessing": preprocessing})
