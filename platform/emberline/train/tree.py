"""The fixed binary tree in which V shards are summed, and which of its nodes each rank can finish alone.

A node is the half-open range of shards `(low, high)` that it sums; the root is `(0, V)`, and every node splits in the
middle. The order of additions is a property of V, so floating-point sums do not depend on the number of ranks.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")
Node = tuple[int, int]


def children(node: Node) -> tuple[Node, Node]:
    low, high = node
    middle = (low + high) // 2
    return (low, middle), (middle, high)


def shards_of(rank: int, world_size: int, num_shards: int) -> Node:
    """The balanced range of shards a rank computes; empty for ranks beyond the shards."""
    return rank * num_shards // world_size, (rank + 1) * num_shards // world_size


def whole_nodes(owned: Node, node: Node) -> Iterator[Node]:
    """The largest nodes under `node` that lie inside the range `owned`, from left to right."""
    low, high = max(owned[0], node[0]), min(owned[1], node[1])
    if low >= high:
        return
    if (low, high) == node:
        yield node
        return
    for child in children(node):
        yield from whole_nodes(owned, child)


def fold(node: Node, leaf: Callable[[int], T], add: Callable[[T, T], T]) -> T:
    """Sums the shards under a node depth first, so that few partial sums are alive at once."""
    low, high = node
    if high - low == 1:
        return leaf(low)
    left, right = children(node)
    first = fold(left, leaf, add)
    return add(first, fold(right, leaf, add))


def finish(node: Node, done: Mapping[Node, T], add: Callable[[T, T], T]) -> T:
    """Sums a node from the partial sums in `done`, adding in the tree's order."""
    if node in done:
        return done[node]
    left, right = children(node)
    first = finish(left, done, add)
    return add(first, finish(right, done, add))
