"""`emberline status`."""

from pathlib import Path


def status(*, state: Path = Path("state"), experiments: Path | None = None) -> None:
    """Show what runs on this machine, and how far each experiment has come and which deployments wait.

    Args:
        state: Folder that it runs from.
        experiments: Folder that route and rollout were started with; without it experiments in --state.
    """
    from rich.console import Console

    from emberline.errors import MissingFile
    from emberline.experiment import read_folder
    from emberline.rollout.wishes import waiting_lines
    from emberline.up.status import status_lines

    if experiments is not None and not experiments.is_dir():
        raise MissingFile(experiments, "the folder of experiments", hint="it is what rollout has as --experiments")
    folder = experiments or state / "experiments"
    found = read_folder(folder)
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    for line in (*status_lines(state, folder, found), *waiting_lines(folder, found.all)):
        console.print(line, markup=False)
