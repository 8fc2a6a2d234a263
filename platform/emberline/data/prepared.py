"""Rows as a model is given them: through the recipe's preprocessing, stacked, with labels as its task has them."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from emberline import assets
from emberline.data.rows import Rows, told
from emberline.data.targets import BadTarget, targets_of
from emberline.errors import EmberlineError
from emberline.recipe import Recipe

Arrays = tuple[NDArray[Any], ...]


def prepare(recipe: Recipe, rows: Rows, indices: Iterable[int]) -> tuple[Arrays, NDArray[Any]]:
    """Rows through the recipe's preprocessing, stacked, and their labels as its task has them.

    Raises:
        EmberlineError: a row does not fit the recipe's inputs or task; names row and field.
    """
    shared = assets.handler_module("ember_preprocessing")
    preprocessing = shared.Preprocessing(recipe.preprocessing.model_dump(mode="json"))
    prepared, labels, read = [], [], list(indices)
    for index in read:
        instance, label = rows[index]
        try:
            prepared.append(preprocessing(instance))
        except shared.InvalidInput as error:
            raise EmberlineError(str(error), place=f"{told(rows, index)} of {recipe.data.source}") from error
        labels.append(label)
    arrays: Arrays = shared.stack(prepared)
    try:
        return arrays, targets_of(recipe).of(labels, arrays[0].shape[-2:])
    except BadTarget as error:
        raise EmberlineError(
            f"label: {error}", place=f"{told(rows, read[error.row])} of {recipe.data.source}"
        ) from error
