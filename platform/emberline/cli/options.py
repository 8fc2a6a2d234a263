"""Options that several verbs share, with the one help text each has."""

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emberline import assets
from emberline.errors import InvalidOption, MissingFile

Set = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="key.path=value laid over the recipe, typed by its models; repeatable"),
]
Header = Annotated[
    tuple[str, ...],
    Parameter(name="--header", negative="", help="`Name: value`, sent with every request; repeatable"),
]
DEFAULT_RECIPE = Path("recipes/digits.yaml")


def shipped_recipe(path: Path) -> Path:
    """The path itself, or the file of `recipes/` that ships with emberline where it names one that is not here."""
    if path.exists() or path.parts[:1] != ("recipes",):
        return path
    shipped = assets.folder("recipes").joinpath(*path.parts[1:])
    return shipped if shipped.is_file() else path


def find_recipe(path: Path) -> Path:
    """The recipe itself, or the one that ships with emberline where it is asked for outside a checkout.

    Raises:
        MissingFile: neither is there.
    """
    found = shipped_recipe(path)
    if found.exists():  # what a folder lacks is told where it is read
        return found
    raise MissingFile(path, "the recipe", hint="emberline ships recipes/digits.yaml")


def require_at_least(verb: str, *options: tuple[str, float, float]) -> None:
    """Refuses numbers below the least that can be used, each given as option, value and least value.

    Raises:
        InvalidOption: names the first of them.
    """
    for name, got, least in options:
        if not least <= got < math.inf:
            raise InvalidOption(f"emberline {verb}", name, got, f"{least:g} or more")
