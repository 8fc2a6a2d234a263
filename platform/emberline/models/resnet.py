"""Residual nets of plain convolutions: ResNet-8 of MLPerf Tiny, and ResNet-18.

Source: Banbury et al., MLPerf Tiny Benchmark (2021), section 4.1 and table 1, about 78k parameters; He et al., Deep
Residual Learning for Image Recognition (2016), table 1, 11.7M parameters.
Legend of shapes: B rows, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is 1x1 where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, *, norm_shortcut: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            straight = nn.Conv2d(channels_in, channels_out, 1, stride, bias=not norm_shortcut)
            self.shortcut = nn.Sequential(straight, nn.BatchNorm2d(channels_out)) if norm_shortcut else straight

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        inner = torch.relu(self.first_norm(self.first(x_BCHW)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x_BCHW))


def resnet8(num_classes: int = 10, width: int = 16, channels_last: bool = False) -> nn.Module:
    """Input (B, 3, 32, 32), output (B, num_classes) scores before softmax.

    Args:
        channels_last: how weights and activations lie in memory; a fifth faster to train on a CPU.
    """
    net = nn.Sequential(
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
    return net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]  # its stub lacks it


def resnet18(
    num_classes: int = 1000,
    width: int = 64,
    stem_stride: int = 2,
    stem_pool: bool = True,
    blocks: Sequence[int] = (2, 2, 2, 2),
    *,
    channels_last: bool = False,
) -> nn.Module:
    """Input (B, 3, H, W), output (B, num_classes) scores before softmax.

    Args:
        stem_stride: 2 as published, for 224 by 224 pixels; 1 keeps small pictures large, at four times the cost.
        stem_pool: halves the size once more after the stem, as published.
        blocks: how many of each of the four widths; (1, 1, 1, 1) is ResNet-10.
        channels_last: how weights and activations lie in memory; faster to train on a CPU.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7 if stem_pool else 3, stem_stride, padding=3 if stem_pool else 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    if stem_pool:
        layers.append(nn.MaxPool2d(3, 2, padding=1))
    channels = width
    for stage, count in enumerate(blocks):
        wide = width * 2**stage
        for position in range(count):
            stride = 2 if stage and position == 0 else 1
            layers.append(Block(channels, wide, stride, norm_shortcut=True))
            channels = wide
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    return net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]  # its stub lacks it
