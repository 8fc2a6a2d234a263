"""MobileNetV2: inverted residuals with depthwise-separable convolutions.

Source: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks (2018), table 2; 3.5M parameters.
Legend of shapes: B rows, C channels, H height, W width.
"""

import torch
from torch import nn

# expansion, channels, repeats, stride: table 2 of the paper
_TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _HEAD = 32, 1280


class InvertedResidual(nn.Module):
    """1x1 to more channels, 3x3 on each channel alone, 1x1 to few channels with no activation after it."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [*_convolution(channels_in, inner, 1)]
        layers += _convolution(inner, inner, 3, stride, groups=inner)
        layers += [nn.Conv2d(inner, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        answer: torch.Tensor = self.layers(x_BCHW)
        return x_BCHW + answer if self.adds else answer


def mobilenet_v2(
    num_classes: int = 1000, width: float = 1.0, dropout: float = 0.2, small_input: bool = False
) -> nn.Module:
    """Input (B, 3, H, W), output (B, num_classes) scores before softmax.

    Args:
        width: factor on all channels, which stay multiples of 8.
        small_input: for 32 by 32 pixels: the stem and the second stage keep the size.
    """
    channels = _even(_STEM * width)
    layers = [*_convolution(3, channels, 3, 1 if small_input else 2)]
    for row, (expansion, wide, repeats, first_stride) in enumerate(_TABLE):
        for position in range(repeats):
            stride = first_stride if position == 0 and not (small_input and row == 1) else 1
            layers.append(InvertedResidual(channels, _even(wide * width), stride, expansion))
            channels = _even(wide * width)
    head = _even(_HEAD * max(1.0, width))
    layers += [*_convolution(channels, head, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(head, num_classes))


def _convolution(
    channels_in: int, channels_out: int, size: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU6()


def _even(channels: float, multiple: int = 8) -> int:
    """The nearest multiple, never a tenth less than asked for."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded
