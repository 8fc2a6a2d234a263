"""A small net for segmentation: down to an eighth of the picture and up again, with what was seen on the way down.

Its answer is what every net's must be that `handlers/segmentation_handler.py` serves: a number a class for each pixel.

Source: the idea is Ronneberger, Fischer and Brox, U-Net (2015), with padding and far fewer channels.
Legend of shapes: B rows, C channels, H height, W width, K classes.
"""

import torch
from torch import nn


class UNet(nn.Module):
    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.down_1 = _block(3, width)
        self.down_2 = _block(width, 2 * width)
        self.down_3 = _block(2 * width, 4 * width)
        self.middle = nn.Sequential(_block(4 * width, 4 * width), _block(4 * width, 4 * width, dilation=2))
        self.up_3 = _block(8 * width, 4 * width)
        self.up_2 = _block(6 * width, 2 * width)
        self.up_1 = _block(3 * width, width)
        self.classes = nn.Conv2d(width, num_classes, 1)
        self.smaller, self.larger = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        whole = self.down_1(x_BCHW)
        half = self.down_2(self.smaller(whole))
        quarter = self.down_3(self.smaller(half))
        eighth = self.middle(self.smaller(quarter))
        quarter = self.up_3(torch.cat([self.larger(eighth), quarter], dim=1))
        half = self.up_2(torch.cat([self.larger(quarter), half], dim=1))
        whole = self.up_1(torch.cat([self.larger(half), whole], dim=1))
        scores_BKHW: torch.Tensor = self.classes(whole)  # noqa: N806 - shape suffixes
        return scores_BKHW


def unet(num_classes: int, width: int = 8) -> nn.Module:
    """Input (B, 3, H, W), sides multiples of 8; output (B, num_classes, H, W) scores before softmax."""
    return UNet(num_classes, width)


def _block(channels_in: int, channels_out: int, *, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )
