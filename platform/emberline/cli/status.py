"""`emberline status`."""

from pathlib import Path


def status(*, state: Path = Path("state")) -> None:
    """Show what runs on this machine, and how far each experiment has come and which deployments wait.

    Args:
        state: Folder that it runs from.
    """
    from rich.console import Console

    from emberline.experiment import read_folder
    from emberline.rollout.deployments import waiting_lines
    from emberline.up.status import status_lines

    folder = state / "experiments"
    for line in (*status_lines(state), *waiting_lines(folder, list(read_folder(folder).experiments.values()))):
        Console(soft_wrap=True, highlight=False, emoji=False).print(line, markup=False)
