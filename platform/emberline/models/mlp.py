"""A multi-layer perceptron for rows of numbers."""

from collections.abc import Sequence

from torch import nn


def mlp(inputs: int, classes: int, hidden: Sequence[int] = (64, 64), dropout: float = 0.0) -> nn.Module:
    """Input (B, inputs) or anything that flattens to it, output (B, classes) scores before softmax."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = inputs
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))
