"""A teacher's answers, recorded: one Parquet row for each row of a split, in its order.

Columns: `row` (int64) and `answers` (float32, a fixed number: the model's raw first output). The file's metadata say
which rows they belong to, so that answers to other rows are refused.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from emberline import data, models
from emberline.artifact import read_artifact
from emberline.errors import EmberlineError, MissingFile
from emberline.paper import MANIFEST
from emberline.recipe import load_recipe
from emberline.runlog import RunLog
from emberline.train.batches import Prepare, place_of
from emberline.train.recorded import METADATA, Split, described_rows

_BATCH = 128
_RECIPE, _TRAINED = "recipe.yaml", Path("artifacts", "trained")


def record(path: Path, *, recipe: Path | None, split: Split, output: Path | None) -> Path:
    """Writes what an artifact's module answers to every row of a split; returns the file's path.

    Args:
        path: an artifact, or a run, whose trained artifact it then is.
        recipe: of the data; the one that the run keeps if not given.

    Raises:
        MissingFile: there is no artifact, or no recipe to read the rows of.
        EmberlineError: a row cannot be read, or the model fails on it.
    """
    folder = path / _TRAINED if (path / _TRAINED / MANIFEST).is_file() else path
    manifest, artifact = read_artifact(folder)
    source = recipe or folder.parent.parent / _RECIPE
    if not source.is_file():
        raise MissingFile(source, "the recipe that names the rows", hint="name it: --recipe recipes/digits.yaml")
    known, search = load_recipe(source), recipe.parent if recipe else None
    rows = getattr(data.load(known.data, search), split)
    place = place_of(known, split)
    if len(rows) == 0:
        raise EmberlineError("there are zero rows to record answers to", place=place)
    model, prepare = models.build(folder, artifact, search), Prepare(artifact.preprocessing, place)
    pieces: list[NDArray[np.float32]] = []
    log = RunLog()
    with log.progress(f"record {split}", total=len(rows)) as advance, torch.no_grad():
        for start in range(0, len(rows), _BATCH):
            indices = np.arange(start, min(start + _BATCH, len(rows)))
            answer = model(*prepare(rows, indices)[0])
            first = answer[0] if isinstance(answer, tuple | list) else answer
            pieces.append(first.float().flatten(1).numpy())
            advance(len(indices))
    target = output or folder.parent.parent / "recorded" / f"{folder.name}-{split}.parquet"
    described = {**described_rows(known, rows, split), "artifact": manifest.name, "digest": manifest.digest}
    _write(target, np.concatenate(pieces), described)
    log.say(f"{len(rows)} answers of {folder} to {place}: {target}")
    return target


def _write(target: Path, answers_BK: NDArray[np.float32], described: dict[str, Any]) -> None:  # noqa: N803 - shapes
    """Whole or not at all."""
    flat = pa.array(answers_BK.reshape(-1), pa.float32())
    table = pa.table(
        {"row": np.arange(len(answers_BK)), "answers": pa.FixedSizeListArray.from_arrays(flat, answers_BK.shape[1])}
    ).replace_schema_metadata({METADATA: json.dumps(described).encode()})
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    pq.write_table(table, partial)
    partial.replace(target)
