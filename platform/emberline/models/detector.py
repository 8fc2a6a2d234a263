"""A small single-stage detector without anchors: each cell of a grid proposes one box.

Its answer is what every detector's must be that `handlers/detection_handler.py` serves: candidates of 4 + K numbers,
the sides of a box as fractions of the picture, then a number a class before the sigmoid.

Source: the idea is Tian et al., FCOS: Fully Convolutional One-Stage Object Detection (2019), with a single level.
Legend of shapes: B rows, C channels, G and J cells down and across, K classes, F = 4 + K.
"""

import math

import torch
from torch import nn

_MOST_LOG = 6.0  # of a distance in cells: e^6 is more than any picture has, and no infinity
_PRIOR = 0.02  # the score of each cell before anything is learnt: nearly all cells are empty


class Detector(nn.Module):
    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(3, width, stride=2),
            *_block(width, 2 * width, stride=2),
            *_block(2 * width, 2 * width, dilation=2),
            *_block(2 * width, 2 * width, dilation=2),
        )
        self.sides = nn.Conv2d(2 * width, 4, 1)
        self.classes = nn.Conv2d(2 * width, num_classes, 1)
        nn.init.zeros_(self.sides.weight)
        nn.init.constant_(self.sides.bias, 0.5)  # type: ignore[arg-type]  # a convolution has one unless told otherwise
        nn.init.constant_(self.classes.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        features = self.features(x_BCHW)
        down, across = features.shape[2], features.shape[3]
        distances = self.sides(features).clamp(max=_MOST_LOG).exp().permute(0, 2, 3, 1)
        y = (torch.arange(down, device=x_BCHW.device, dtype=features.dtype) + 0.5).view(1, -1, 1, 1)
        x = (torch.arange(across, device=x_BCHW.device, dtype=features.dtype) + 0.5).view(1, 1, -1, 1)
        left, top, right, bottom = distances.split(1, dim=3)
        boxes = torch.cat([(x - left) / across, (y - top) / down, (x + right) / across, (y + bottom) / down], dim=3)
        return torch.cat([boxes, self.classes(features).permute(0, 2, 3, 1)], dim=3)


def detector(num_classes: int, width: int = 16) -> nn.Module:
    """Input (B, 3, H, W), output (B, H / 4, W / 4, 4 + num_classes)."""
    return Detector(num_classes, width)


def _block(channels_in: int, channels_out: int, *, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(
        channels_in, channels_out, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)
