"""The looks that were taken at an experiment, so that reports can draw its intervals over time.

Looks are kept ever more sparsely within a step (each 3 % later than the one before it): a step of a week leaves some
hundred lines. They are for drawing; no decision reads them.
"""

from pathlib import Path

from emberline.compare.assessment import Assessment
from emberline.compare.jsonlines import append_line, read_lines

_SPACING = 1.03


def history_path(experiments: Path, name: str) -> Path:
    return experiments / f"{name}.history.jsonl"


def keep_look(experiments: Path, look: Assessment, last: Assessment | None) -> Assessment | None:
    """Keeps a look if it is far enough from the last one kept, which is returned."""
    if look.step is None:
        return last
    if last is not None and _says(last) == _says(look) and look.waited_s < last.waited_s * _SPACING + 1:
        return last
    append_line(history_path(experiments, look.experiment), look.model_dump(mode="json"))
    return look


def _says(look: Assessment) -> tuple[object, ...]:
    return look.config_version, look.verdict, look.advance


def read_looks(experiments: Path, name: str) -> tuple[Assessment, ...]:
    return tuple(Assessment.model_validate(line) for line in read_lines(history_path(experiments, name)))
