"""`emberline status`."""

from pathlib import Path


def status(*, state: Path = Path("state")) -> None:
    """Show what runs on this machine, and how far each experiment has come.

    Args:
        state: Folder that it runs from.
    """
    from rich.console import Console

    from emberline.up.status import status_lines

    for line in status_lines(state):
        Console(soft_wrap=True, highlight=False, emoji=False).print(line, markup=False)
