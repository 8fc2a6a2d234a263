"""Artifacts by their folders: verified, measured, printed."""

from collections.abc import Sequence
from pathlib import Path

from emberline.artifact import read_artifact
from emberline.errors import EmberlineError
from emberline.measure.session import Candidate, measure
from emberline.measure.table import print_table
from emberline.runlog import RunLog


def measure_artifacts(folders: Sequence[Path], *, rounds: int, batch_sizes: Sequence[int], threads: int) -> None:
    """Measures artifacts against the first of them and prints the table.

    Raises:
        EmberlineError: a folder is no artifact, or has no packages.
    """
    candidates = [_candidate(folder, folders) for folder in folders]
    measured = measure(candidates, batch_sizes, threads=threads, rounds=rounds, log=RunLog())
    print_table(measured, candidates[0].name)


def _candidate(folder: Path, others: Sequence[Path]) -> Candidate:
    _, artifact = read_artifact(folder)
    if not artifact.packages:
        raise EmberlineError("holds weights and no package", place=folder, hint="`emberline compress` makes packages")
    names = [other.resolve().name for other in others]
    name = folder.resolve().name
    # two artifacts of one name, say of two runs, are told apart by their paths
    return Candidate(name if names.count(name) == 1 else str(folder), folder, artifact.model_dump(mode="json"))
