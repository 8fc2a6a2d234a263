"""Whom the demo kills, and when."""

from typing import Any

import pytest

from emberline.up.sabotage import choose_victim

WORLD = {"event": "world", "pids": [11, 12]}


def step(number: int, epoch: int) -> dict[str, Any]:
    return {"event": "step", "step": number, "epoch": epoch}


@pytest.mark.parametrize("events", [[], [WORLD], [step(900, 9)], [WORLD, step(10, 1)], [WORLD, step(99, 4)]])
def test_nobody_is_killed_before_half_of_the_epochs(events: list[dict[str, Any]]) -> None:
    assert choose_victim(events, 10) is None


def test_the_last_rank_of_the_newest_world_is_killed_half_way() -> None:
    newer = {"event": "world", "pids": [21, 22]}
    assert choose_victim([WORLD, step(10, 1), newer, step(100, 5)], 10) == (22, 100)
