"""Calling the recipe's data source, and the checks that come before anything is trained on it."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emberline.data.rows import Rows, Splits, told
from emberline.data.subset import sample
from emberline.errors import EmberlineError, InvalidSetting
from emberline.recipe import PICTURE_TASKS, Data, Recipe, Task


def load(data: Data, search: Path | None) -> Splits:
    """Calls `data.source` with its arguments; of the training rows it keeps the sample that `data.sample` asks for.

    Args:
        search: folder of the recipe, put first on `sys.path` so that a user's modules beside it are found.

    Raises:
        InvalidSetting: module or function is not there, or what it returned are no `Splits`.
        EmberlineError: the source failed, or a split has no rows.
    """
    if search is not None and str(search.resolve()) not in sys.path:
        sys.path.insert(0, str(search.resolve()))
    module_name, _, name = data.source.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        hint = f"modules beside the recipe are found: {search}" if search else "name an installed module"
        raise InvalidSetting(
            "data.source", "module", module_name, "a module that can be imported", hint=hint
        ) from error
    source = getattr(module, name, None)
    if not callable(source):
        raise InvalidSetting("data.source", "function", name, f"a function of {module_name}")
    try:
        splits = source(**data.arguments)
    except EmberlineError:
        raise
    except Exception as error:
        # a user's own code may fail in any way; which function it was is what helps
        raise EmberlineError(
            f"failed with {type(error).__name__}: {error}", place=f"data.source {data.source}"
        ) from error
    if not isinstance(splits, Splits):
        hint = "end the function with `return Splits(train, validation, test)`; rows_from_arrays makes rows of arrays"
        raise InvalidSetting(data.source, "what it returned", type(splits).__name__, "emberline.data.Splits", hint=hint)
    if data.sample is None or len(splits.train) == 0:
        return splits
    return replace(splits, train=sample(splits.train, data.sample))


def load_checked(recipe: Recipe, search: Path | None) -> Splits:
    """A recipe's splits, fit to be trained and judged on.

    Raises:
        InvalidSetting, EmberlineError: as `load` and `check_splits` have them.
    """
    splits = load(recipe.data, search)
    check_splits(splits, len(recipe.labels), f"data.source {recipe.data.source}", recipe.train.task)
    return splits


def check_splits(splits: Splits, num_classes: int, place: str, task: Task = "classification") -> None:
    """Refuses splits that cannot be trained on: no rows, or labels (where a split tells them) out of range.

    Args:
        num_classes: classes of the model; 0 where the recipe names no labels, then only negative ones are refused.
        task: of places in pictures, labels are looked at when rows are read.
    """
    for split in ("train", "validation"):
        rows = getattr(splits, split)
        if len(rows) == 0:
            hint = "the source must return at least one row for training and one for validation"
            raise EmberlineError(f"split {split!r} has zero rows", place=place, hint=hint)
        labels = None if task in PICTURE_TASKS else getattr(rows, "labels", None)
        if labels is not None:
            whole = np.asarray(labels)
            check_labels(whole, num_classes, f"{place}, split {split!r}", rows, np.arange(len(whole)))


def check_labels(
    labels: NDArray[np.int64], num_classes: int, place: str, rows: Rows, indices: NDArray[np.int64]
) -> None:
    """Raises when a label is negative or no index of a class; names the first such row.

    Args:
        num_classes: 0 where they are not known, then only negative labels are refused.
        rows: whose labels they are.
        indices: of the labels' rows.
    """
    limit = num_classes or np.iinfo(np.int64).max
    bad = np.flatnonzero((labels < 0) | (labels >= limit))
    if bad.size:
        label, row = int(labels[bad[0]]), int(indices[bad[0]])
        hint = "name every class in the recipe's labels, in the order of their numbers, or mend the source"
        required = f"0 to {num_classes - 1}, an index into the recipe's labels," if num_classes else "0 or more"
        raise InvalidSetting(place, f"label of {told(rows, row)}", label, required, hint=hint)
