"""The batches that are timed: one where all rows have one shape; of texts as many as show the lengths of the data.

Legend of shapes: N rows, B rows of a batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emberline import assets

Batch = tuple[NDArray[Any], ...]

_ROWS = 64  # of texts, at least, that are in the batches of one size together
_FEWEST = 4
_SEED = 0


def batches_of(rows: Batch, size: int, texts: Sequence[int]) -> list[Batch]:
    """`size` rows each, repeated from the start where there are fewer.

    Texts are taken evenly from the shortest to the longest of all, and put together by chance, as they are served.

    Args:
        rows: (N, …) each, texts padded to one length.
        texts: positions of the inputs that are texts; without any there is one batch, of the first rows.
    """
    if not texts:
        return [tuple(np.ascontiguousarray(np.resize(array[:size], (size, *array.shape[1:]))) for array in rows)]
    count = max(_FEWEST, _ROWS // size)
    order = np.argsort(sum((rows[one] != 0).sum(axis=1) for one in texts), kind="stable")
    evenly = order[(2 * np.arange(count * size) + 1) * len(order) // (2 * count * size)]
    chosen = np.random.default_rng(_SEED).permutation(evenly).reshape(count, size)
    return [tuple(np.ascontiguousarray(array[some]) for array in rows) for some in chosen]


def longest_of(batches: Sequence[Batch], texts: Sequence[int]) -> Batch:
    """The batch with the longest text, which takes most memory; without texts the first."""
    longest = assets.handler_module("ember_text").longest
    return max(batches, key=lambda batch: sum(longest(batch[one]) for one in texts))


def unpadded(batch: Batch, texts: Sequence[int]) -> Batch:
    """A batch as a plain module is given it: texts as long as the longest."""
    least = [1 if position in texts else None for position in range(len(batch))]
    return tuple(assets.handler_module("ember_text").cut(batch, least))
