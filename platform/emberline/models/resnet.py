"""ResNet-8: the image classification net of MLPerf Tiny, for 32 by 32 pixels.

Source: Banbury et al., MLPerf Tiny Benchmark (2021), section 4.1 and table 1; about 78k parameters.
Legend of shapes: B rows, C channels, H height, W width.
"""

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is 1x1 where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels_out)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1, stride)
        )

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        inner = torch.relu(self.first_norm(self.first(x_BCHW)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x_BCHW))


def resnet8(num_classes: int = 10, width: int = 16) -> nn.Module:
    """Input (B, 3, 32, 32), output (B, num_classes) scores before softmax."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, width, 1),
        Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )
