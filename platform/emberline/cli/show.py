"""`emberline show`."""

from pathlib import Path


def show(path: Path, /, *, keys: Path = Path("keys")) -> None:
    """Show a paper: a run, checkpoint, artifact, archive, recipe or experiment, with its lineage.

    Every file is checked against its hash first.

    Args:
        path: The folder or file.
        keys: Folder of the public key that an archive's signature is checked with.
    """
    from rich.console import Console

    from emberline.cli.options import shipped_recipe
    from emberline.cli.papers import describe

    console = Console(soft_wrap=True, highlight=False, emoji=False)
    for line in describe(shipped_recipe(path), keys):
        console.print(line, markup=False)
