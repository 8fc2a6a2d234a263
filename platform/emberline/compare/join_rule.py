"""How a cluster joins two tables not partitioned alike: by sending the small one to everybody, or by sorting both.

With n workers, A the rows of the larger table and B those of the smaller one, each worker reads its share of both; a
broadcast then costs each worker 2B more (B received, B hashed), a sort-merge twice its share of both again (shuffled,
sorted). So A/n + B/n + 2B < 3A/n + 3B/n, which is n < 1 + A/B.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Join:
    """The join to make.

    Attributes:
        build: the side that is broadcast: the smaller one, wherever it was written; None for a sort-merge.
    """

    kind: Literal["broadcast", "sort-merge"]
    build: Literal["left", "right"] | None = None


def choose_join(workers: int, left: int, right: int) -> Join:
    """The cheaper join of two tables of `left` and `right` rows."""
    larger, smaller = max(left, right), min(left, right)
    # n < 1 + A/B in whole numbers, so that an empty table needs no case of its own
    if (workers - 1) * smaller < larger or not smaller:
        return Join("broadcast", "left" if left < right else "right")
    return Join("sort-merge")
