"""The groups of a ranking: rows that compete with each other, such as the candidates of one request.

A ranking's plan counts groups instead of rows, so a group is never divided among shards. All groups are filled up to
one length, since kernels must see one shape whatever the number of workers: with the group's first row again, whose
label is then -1. Losses and metrics leave those out; batch norm does not, so it suits groups of about one length.

Legend of shapes: B groups of L rows.
"""

import numpy as np
from numpy.typing import NDArray

from emberline.data import Rows, order_of
from emberline.errors import EmberlineError

ABSENT = -1  # the label of a row that only fills up


class Groups:
    """Which rows each group has.

    Args:
        rows: their `groups` give the number of each row's group; rows of one need not stand together.
        place: the source with its split, for errors.

    Attributes:
        length: rows of the largest group.

    Raises:
        EmberlineError: the rows do not tell their groups.
    """

    def __init__(self, rows: Rows, place: str) -> None:
        told = getattr(rows, "groups", None)
        if told is None:
            hint = "give the rows an attribute `groups`, one number a row (of Parquet: arguments.group, a column)"
            fact = "task ranking needs groups of rows, and the rows do not tell theirs"
            raise EmberlineError(fact, place=place, hint=hint)
        self._rows = rows
        numbers = np.asarray(told)
        if numbers.shape != (len(rows),):
            raise EmberlineError(f"groups are told for {len(numbers)} of {len(rows)} rows", place=place)
        _, first, group_of = np.unique(numbers, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))  # groups are numbered as they come
        self._group_of = rank[group_of]
        sizes = np.bincount(self._group_of, minlength=len(first))
        self.length = int(sizes.max(initial=0))
        self._members = np.argsort(self._group_of, kind="stable").astype(np.int64)
        self._starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Groups in the order in which the rows' own order comes to one of them."""
        met = self._group_of[order_of(self._rows, seed, epoch)]
        _, first = np.unique(met, return_index=True)
        return met[np.sort(first)]

    def rows_of(self, groups_B: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:  # noqa: N803 - shapes
        """Indices of the groups' rows, (B, L), and which of them only fill up."""
        starts, ends = self._starts[groups_B][:, None], self._starts[groups_B + 1][:, None]
        places = starts + np.arange(self.length)
        fills = places >= ends
        return self._members[np.where(fills, starts, places)], fills
