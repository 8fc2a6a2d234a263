"""The demo's net: three convolutions, or another number, over 8 by 8 pixels.

Legend of shapes: B rows, C channels, H height, W width, K classes.
"""

import torch
from torch import nn


class DigitsCNN(nn.Module):
    def __init__(self, width: int, num_classes: int, depth: int) -> None:
        super().__init__()
        inner = [layer for _ in range(depth - 2) for layer in _block(width, width)]
        self.features = nn.Sequential(
            *_block(1, width),
            *inner,
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        scores_BK: torch.Tensor = self.classifier(self.features(x_BCHW).flatten(1))  # noqa: N806 - shape suffixes
        return scores_BK


def digits_cnn(width: int = 64, num_classes: int = 10, depth: int = 3) -> nn.Module:
    """Input (B, 1, 8, 8), output (B, num_classes) scores before softmax.

    Args:
        depth: convolutions, 2 or more.
    """
    if depth < 2:  # noqa: PLR2004 - the first and the last
        raise ValueError(f"depth {depth}; 2 or more is required")
    return DigitsCNN(width, num_classes, depth)


def _block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)
