"""`emberline compress`: artifacts from a trained model, measured and gated."""

from pathlib import Path

from emberline.cli.options import DEFAULT_RECIPE, Set, find_recipe


def compress(recipe: Path = DEFAULT_RECIPE, /, *, settings: Set = (), runs: Path = Path("runs")) -> None:
    """Make the recipe's artifacts (prune, fine-tune, quantize, export), measure them, hold them to their gates.

    Stages that an earlier run did with the same inputs are reused; an interrupted run goes on where it was.

    Args:
        recipe: The recipe whose `compress` section lists artifacts, stages and gates.
        runs: Folder of the runs.
    """
    from emberline.compress.run import compress_recipe

    compress_recipe(find_recipe(recipe), settings, runs)
