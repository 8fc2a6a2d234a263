"""Optimizer and learning rate: functions of the recipe and the step, with no state of their own beyond the moments."""

import math
from collections.abc import Iterable
from typing import Literal

from torch import nn, optim

from emberline.recipe import Optimizer


def make_optimizer(parameters: Iterable[nn.Parameter], settings: Optimizer) -> optim.Optimizer:
    if settings.name == "sgd":
        momentum, decay = settings.momentum, settings.weight_decay
        return optim.SGD(parameters, settings.learning_rate, momentum=momentum, weight_decay=decay)
    return optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)


def learning_rate(
    step: int, total_steps: int, base: float, *, warmup_steps: int, shape: Literal["constant", "cosine"]
) -> float:
    """The rate for `step`, counted from 0: a linear warm-up, then constant or half a cosine down to zero."""
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    if shape == "constant":
        return base
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
