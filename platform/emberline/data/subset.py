"""Some of the rows: a fixed part for validation, or a fixed sample for a quick look.

Which rows they are depends on their number alone. They are drawn one by one rather than as whole row groups, since
files are often written in some order of their own.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emberline.data.identity import Identity, identity_of, of_some
from emberline.data.order import generator, order_of
from emberline.data.rows import Instance, Rows

_DRAW = 0  # the draw's key; a seed of the recipe must not move rows between training and validation


class Subset:
    """The rows at some indices of others, in the order of those indices."""

    def __init__(self, rows: Rows, indices: NDArray[np.int64]) -> None:
        self._rows, self._indices = rows, np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Instance, Any]:
        return self._rows[int(self._indices[index])]

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The order that the rows have among all."""
        place = np.full(len(self._rows), -1, np.int64)
        place[self._indices] = np.arange(len(self._indices))
        own = place[order_of(self._rows, seed, epoch)]
        return own[own >= 0]

    def digest(self) -> Identity | None:
        """What the rows are known by; None where the others do not tell."""
        whole = identity_of(self._rows)
        return None if whole is None else of_some(whole, self._indices)

    def place(self, index: int) -> str:
        """Where the row is kept; empty where its rows do not tell."""
        tell = getattr(self._rows, "place", None)
        return str(tell(int(self._indices[index]))) if tell is not None else ""

    def column_of(self, name: str) -> str | None:
        """The column an input is kept in; None where the rows do not tell."""
        tell = getattr(self._rows, "column_of", None)
        return tell(name) if tell is not None else None

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """All labels.

        Raises:
            AttributeError: the rows do not tell theirs.
        """
        return np.asarray(self._rows.labels, np.int64)[self._indices]  # type: ignore[attr-defined]  # rows may have it

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """The number of each row's group; None where the rows tell none."""
        told = getattr(self._rows, "groups", None)
        return None if told is None else np.asarray(told, np.int64)[self._indices]


def sample(rows: Rows, fraction: float) -> Subset:
    """A fixed sample, the same for each seed and each run: at least one row.

    A smaller fraction's rows are among those of a larger one. Rows of one group come together.
    """
    return Subset(rows, divide(len(rows), fraction, getattr(rows, "groups", None))[1])


def divide(
    num_rows: int, fraction: float, groups: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the rows that are kept, and of a fixed fraction that is held out of them.

    Args:
        groups: the number of each row's group, if they have groups; then whole groups are held out.
    """
    if groups is not None:
        _, group_of = np.unique(np.asarray(groups), return_inverse=True)
        num_groups = int(group_of.max(initial=-1)) + 1
        out = np.isin(group_of, _drawn(num_groups)[: _count(fraction, num_groups)])
        return np.flatnonzero(~out), np.flatnonzero(out)
    drawn = _drawn(num_rows)
    count = _count(fraction, num_rows)
    return np.sort(drawn[count:]), np.sort(drawn[:count])


def _drawn(num_rows: int) -> NDArray[np.int64]:
    return generator(_DRAW, num_rows).permutation(num_rows).astype(np.int64)


def _count(fraction: float, num_rows: int) -> int:
    return min(num_rows, max(1, round(fraction * num_rows)))
