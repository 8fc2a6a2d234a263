"""`emberline compress`: artifacts from a trained model, measured and gated."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emberline.cli.options import DEFAULT_RECIPE, Set, find_recipe


def compress(
    recipe: Path = DEFAULT_RECIPE,
    /,
    *,
    settings: Set = (),
    search: Annotated[bool, Parameter(negative="")] = False,
    runs: Path = Path("runs"),
) -> None:
    """Make the recipe's artifacts (prune, fine-tune, quantize, export), measure them, hold them to their gates.

    Stages that an earlier run did with the same inputs are reused; an interrupted run goes on where it was.

    Args:
        recipe: The recipe whose `compress` section lists artifacts, stages and gates.
        search: Look for better stages instead, as `compress.search` allows, and write a recipe for each that no other
            beats in accuracy, latency, size and memory. A stopped search goes on where it was.
        runs: Folder of the runs.
    """
    if search:
        from emberline.compress.search.run import search_recipe

        search_recipe(find_recipe(recipe), settings, runs)
        return
    from emberline.compress.run import compress_recipe

    compress_recipe(find_recipe(recipe), settings, runs)
