"""Accuracy and loss over rows, by all ranks; the same bits in any world.

Rows are cut into batches of one size, which ranks take in turn: a kernel's rounding may depend on the shape of its
batch, so that must not depend on the number of ranks. The batches' losses are added in their order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from emberline.data import Rows
from emberline.errors import EmberlineError
from emberline.models import failing_layer
from emberline.recipe import Preprocessing
from emberline.train.batches import Prepare
from emberline.train.world import World, require_peers

_BATCH = 128

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Attributes:
    loss: mean over the rows; NaN where no loss was asked for.
    """

    accuracy: float
    loss: float


def accuracy(
    model: nn.Module, rows: Rows, preprocessing: Preprocessing, world: World | None = None, *, place: str
) -> float:
    """The fraction of rows whose highest output is their label; leaves the model in eval mode.

    Args:
        place: the source with its split, for errors.

    Raises:
        EmberlineError: the forward failed, or there are no rows.
    """
    return evaluate(model, rows, preprocessing, world, place=place).accuracy


def evaluate(
    model: nn.Module, rows: Rows, preprocessing: Preprocessing, world: World | None = None, *,
    place: str, loss: Loss | None = None,
) -> Evaluation:  # fmt: skip
    """Accuracy, and the mean of `loss` where one is given; otherwise as `accuracy`."""
    world = world or World()
    if len(rows) == 0:
        raise EmberlineError("there are zero rows to evaluate on", place=place)
    prepare = Prepare(preprocessing, place)
    starts = range(0, len(rows), _BATCH)
    right = torch.zeros(len(starts), dtype=torch.float64)
    losses = torch.zeros(len(starts), dtype=torch.float64)
    model.eval()
    for number in range(world.rank, len(starts), world.size):
        indices = np.arange(starts[number], min(starts[number] + _BATCH, len(rows)))
        inputs, targets = prepare(rows, indices)
        labels = torch.from_numpy(targets)
        right[number], losses[number] = _judge(model, inputs, labels, world, loss)
    # each number is one rank's, and zero at the others: a sum that no order changes
    world.sum(right)
    world.sum(losses)
    mean = sum(losses.tolist()) / len(rows) if loss is not None else float("nan")
    return Evaluation(int(right.sum()) / len(rows), mean)


def _judge(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, world: World, loss: Loss | None
) -> tuple[int, float]:
    """Rows that were right, and the sum of their losses."""
    try:
        with torch.no_grad():
            outputs: torch.Tensor = model(*(one.to(world.device) for one in inputs))
            right = int(outputs.argmax(dim=1).cpu().eq(labels).sum())
            return right, float(loss(outputs, labels.to(world.device))) * len(labels) if loss is not None else 0.0
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        require_peers(error)
        layer = failing_layer(error, model)
        where = f"layer {layer}" if layer else "the choice of the highest output, or the loss,"
        raise EmberlineError(f"{where} failed: {error}", place=f"rank {world.rank}, evaluation") from error
