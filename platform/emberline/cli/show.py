"""`emberline show`."""

from pathlib import Path


def show(path: Path, /) -> None:
    """Show a paper: a run, checkpoint, artifact, archive, recipe or experiment, with its lineage.

    Every file is checked against its hash first.

    Args:
        path: The folder or file.
    """
    from rich.console import Console

    from emberline.cli.papers import describe

    console = Console(soft_wrap=True, highlight=False)
    for line in describe(path):
        console.print(line, markup=False)
