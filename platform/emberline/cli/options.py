"""Options that several verbs share, with the one help text each has."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emberline import assets
from emberline.errors import MissingFile

Set = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="key.path=value laid over the recipe, typed by its models; repeatable"),
]
DEFAULT_RECIPE = Path("recipes/digits.yaml")


def find_recipe(path: Path) -> Path:
    """The recipe itself, or the one that ships with emberline where the default is asked for outside a checkout.

    Raises:
        MissingFile: neither is there.
    """
    if path.is_file():
        return path
    shipped = assets.folder("recipes").joinpath(*path.parts[1:]) if path.parts[:1] == ("recipes",) else path
    if shipped.is_file():
        return shipped
    raise MissingFile(path, "the recipe", hint="emberline ships recipes/digits.yaml")
