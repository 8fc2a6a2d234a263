"""The order in which rows are read: a function of seed and epoch alone.

No reader keeps a shuffle buffer or a position of its own, so the state of reading is a pair of numbers (epoch, rows
consumed), and any number of workers at any time agree on what comes next.
"""

import numpy as np
from numpy.typing import NDArray

from emberline.data.rows import Rows


def order(seed: int, epoch: int, num_rows: int) -> NDArray[np.int64]:
    """A permutation of `range(num_rows)`, by Philox keyed with (seed, epoch)."""
    return generator(seed, epoch).permutation(num_rows).astype(np.int64)


def windowed_order(seed: int, epoch: int, group_sizes: tuple[int, ...], window: int = 4) -> NDArray[np.int64]:
    """A permutation that opens few row groups at a time: rows are shuffled within windows of shuffled groups.

    Args:
        group_sizes: rows in each row group, in file order.
        window: how many groups are open at once; 1 reads group after group.
    """
    random = generator(seed, epoch)
    starts = np.concatenate(([0], np.cumsum(group_sizes))).astype(np.int64)
    groups = random.permutation(len(group_sizes))
    pieces = []
    for first in range(0, len(groups), window):
        rows = np.concatenate([np.arange(starts[g], starts[g + 1]) for g in groups[first : first + window]])
        pieces.append(random.permutation(rows))
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def order_of(rows: Rows, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch over any rows: their own where they have one."""
    own = getattr(rows, "order", None)
    return np.asarray(own(seed, epoch), np.int64) if own is not None else order(seed, epoch, len(rows))


def generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch]))
