"""Augmentation of training images: functions for `train.augment`, seeded per shard and step by the trainer.

Legend of shapes: B rows, C channels, H height, W width.
"""

import torch
from torch.nn import functional

_USUAL, _LITTLE = 4, 2  # pixels that an image of 32 by 32 may move by


def crop_and_flip(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Moves each image by up to four pixels, zeros coming in from the sides, and mirrors one half of them.

    The first input is (B, C, H, W), already normalised; others stay as they are.
    """
    return _move_and_mirror(inputs, _USUAL)


def shift_and_flip(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The same by up to two pixels: for nets so small that they learn more from less variety."""
    return _move_and_mirror(inputs, _LITTLE)


def _move_and_mirror(inputs: tuple[torch.Tensor, ...], padding: int) -> tuple[torch.Tensor, ...]:
    images, *others = inputs
    rows, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    tops, lefts = torch.randint(0, 2 * padding + 1, (2, rows))
    down = tops[:, None] + torch.arange(height)
    across = lefts[:, None] + torch.arange(width)
    across = torch.where(torch.rand(rows, 1) < 0.5, across.flip(1), across)  # noqa: PLR2004 - one half
    which = torch.arange(rows)[:, None, None]
    # indices around a slice put the pixels first: (B, H, W, C)
    moved = padded[which, :, down[:, :, None], across[:, None, :]]
    return moved.permute(0, 3, 1, 2), *others
