"""The order of additions is a property of the number of shards."""

import pytest

from emberline.train import tree


def add(left: str, right: str) -> str:
    return f"({left}+{right})"


@pytest.mark.parametrize("num_shards", [1, 2, 3, 4, 6, 7, 12, 13])
def test_any_number_of_ranks_adds_in_the_same_order(num_shards):
    root = (0, num_shards)
    alone = tree.fold(root, str, add)
    for world_size in range(1, num_shards + 1):
        done = {}
        for rank in range(world_size):
            for node in tree.whole_nodes(tree.shards_of(rank, world_size, num_shards), root):
                done[node] = tree.fold(node, str, add)
        assert tree.finish(root, done, add) == alone


@pytest.mark.parametrize(("num_shards", "world_size"), [(12, 5), (7, 3), (4, 4), (3, 1)])
def test_ranks_own_every_shard_once(num_shards, world_size):
    owned = [tree.shards_of(rank, world_size, num_shards) for rank in range(world_size)]
    assert [shard for low, high in owned for shard in range(low, high)] == list(range(num_shards))
    sizes = [high - low for low, high in owned]
    assert max(sizes) - min(sizes) <= 1
