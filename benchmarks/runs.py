"""Runs that a recipe's own commands leave behind, for the keys that take what was trained."""

import os
from pathlib import Path

RUNS = Path(os.environ.get("EMBERLINE_RUNS", Path(__file__).parents[1] / "runs"))


def run_with(name: str, file: str) -> Path:
    """The folder of a run that has `file`.

    Raises:
        FileNotFoundError: it has not; names the recipe whose commands make it.
    """
    folder = RUNS / name
    if not (folder / file).is_file():
        fact = f"{folder / file} is not there"
        raise FileNotFoundError(f"{fact}; train and compress it first, as recipes/{name}.yaml says at its top")
    return folder
