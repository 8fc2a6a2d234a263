"""`emberline record`: a teacher's answers, for distillation without the teacher."""

from pathlib import Path
from typing import Literal


def record(
    path: Path,
    /,
    *,
    recipe: Path | None = None,
    split: Literal["train", "validation", "test"] = "train",
    output: Path | None = None,
) -> None:
    """Record what a trained model answers to every row, into a Parquet file that a distill stage can learn from.

    Args:
        path: An artifact, or a run, whose trained artifact it then is.
        recipe: The recipe that names the rows; the one that the run keeps if not given.
        split: Which of the recipe's splits.
        output: The file; RUN/recorded/ARTIFACT-SPLIT.parquet if not given.
    """
    from emberline.compress.record import record as write

    write(path, recipe=recipe, split=split, output=output)
