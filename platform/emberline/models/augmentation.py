"""Augmentation of training images: functions for `train.augment`, seeded per shard and step by the trainer.

Legend of shapes: B rows, C channels, H height, W width.
"""

import torch
from torch.nn import functional

_PADDING = 4  # pixels that an image may move by; usual for 32 by 32


def crop_and_flip(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Moves each image by up to four pixels, zeros coming in from the sides, and mirrors one half of them.

    The first input is (B, C, H, W), already normalised; others stay as they are.
    """
    images, *others = inputs
    rows, _, height, width = images.shape
    padded = functional.pad(images, (_PADDING,) * 4)
    tops, lefts = torch.randint(0, 2 * _PADDING + 1, (2, rows))
    down = tops[:, None] + torch.arange(height)
    across = lefts[:, None] + torch.arange(width)
    across = torch.where(torch.rand(rows, 1) < 0.5, across.flip(1), across)  # noqa: PLR2004 - one half
    which = torch.arange(rows)[:, None, None]
    # indices around a slice put the pixels first: (B, H, W, C)
    moved = padded[which, :, down[:, :, None], across[:, None, :]]
    return moved.permute(0, 3, 1, 2), *others
