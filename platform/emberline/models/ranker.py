"""A ranker over a row of numbers and a few categories: embeddings beside the numbers, then a perceptron.

Legend of shapes: B rows, N numbers, C categories, K classes.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


class Ranker(nn.Module):
    """Attributes:
    keep_whole: parts that structured pruning must leave as they are: a table's width is its users' business.
    """

    keep_whole = ("tables*",)

    def __init__(
        self, numbers: int, categories: Sequence[int], table: int, hidden: Sequence[int], classes: int
    ) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, table) for size in categories)
        widths = [numbers + table * len(categories), *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, numbers_BN: torch.Tensor, categories_BC: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shapes
        known = [table(categories_BC[:, position]) for position, table in enumerate(self.tables)]
        answer: torch.Tensor = self.layers(torch.cat([numbers_BN, *known], dim=1))
        return answer


def ranker(
    numbers: int, categories: Sequence[int], table: int = 16, hidden: Sequence[int] = (128, 64), classes: int = 2
) -> nn.Module:
    """Inputs (B, numbers) floats and (B, categories) whole numbers; output (B, classes) scores before softmax.

    Args:
        categories: how many values each category has.
        table: width of each category's embedding.
    """
    return Ranker(numbers, categories, table, hidden, classes)
