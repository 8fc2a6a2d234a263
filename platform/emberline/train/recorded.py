"""A teacher's recorded answers, read back beside the rows that they are answers to.

Legend of shapes: B rows, K numbers of an answer.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emberline.data import Instance, Rows
from emberline.data.identity import identity_of
from emberline.errors import EmberlineError, InvalidSetting, MissingFile
from emberline.recipe import Recipe

Split = Literal["train", "validation", "test"]

METADATA = b"emberline"  # of the file's schema: which rows it holds answers to
TEACHER_INPUT = "teacher_answers"  # the name that recorded answers travel under, as one more input


class RecordedRows:
    """Rows with a teacher's recorded answer as one more input."""

    def __init__(self, rows: Rows, answers_BK: NDArray[np.float32]) -> None:  # noqa: N803 - shape suffixes
        self._rows, self._answers = rows, answers_BK

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Instance, Any]:
        instance, label = self._rows[index]
        return {**instance, TEACHER_INPUT: self._answers[index]}, label

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)  # labels, groups and an order of their own, where the rows have them


def described_rows(recipe: Recipe, rows: Rows, split: Split) -> dict[str, Any]:
    """What answers are tied to; the digest is None of rows that tell none."""
    identity = identity_of(rows)
    told = {"source": recipe.data.source, "arguments": recipe.data.arguments, "split": split}
    return {**told, "rows": identity and identity["xxh3"]}


def read_answers(path: Path, recipe: Recipe, rows: Rows, split: Split = "train") -> NDArray[np.float32]:
    """The recorded answers to a split, one row each.

    Rows of the same source that changed are known by their digest, where rows tell one and did when they were answered.

    Raises:
        MissingFile: there is no such file.
        InvalidSetting: it was recorded on other rows; names what differs.
    """
    hint = "record them anew: emberline record ARTIFACT"
    if not path.is_file():
        raise MissingFile(path, "the file of recorded answers", hint=hint)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise EmberlineError(f"cannot be read as Parquet: {error}", place=path, hint=hint) from error
    known = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
    described = described_rows(recipe, rows, split)
    digest = described.pop("rows")
    for key, value in described.items():
        if known.get(key) != value:
            raise InvalidSetting(path, f"the answers' {key}", known.get(key), repr(value), hint=hint)
    if table.num_rows != len(rows):
        raise InvalidSetting(path, "number of answers", table.num_rows, f"one for each of {len(rows)} rows", hint=hint)
    if digest is not None and known.get("rows") not in (None, digest):
        raise InvalidSetting(path, "the answers' rows", known["rows"], repr(digest), hint=hint)
    answers = table.column("answers").combine_chunks()
    return np.asarray(answers.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(rows), -1)
