"""Accuracy over rows, counted by all ranks; whole numbers, so the same in any world."""

import numpy as np
import torch
from torch import nn

from emberline.data import Rows
from emberline.errors import EmberlineError
from emberline.models import failing_layer
from emberline.recipe import Preprocessing
from emberline.train.batches import Prepare
from emberline.train.world import World

_BATCH = 128


def accuracy(
    model: nn.Module, rows: Rows, preprocessing: Preprocessing, world: World | None = None, *, place: str
) -> float:
    """The fraction of rows whose highest output is their label; leaves the model in eval mode.

    Args:
        place: the source with its split, for errors.

    Raises:
        EmberlineError: the forward failed, or there are no rows.
    """
    world = world or World()
    if len(rows) == 0:
        raise EmberlineError("there are zero rows to evaluate on", place=place)
    prepare = Prepare(preprocessing, place)
    low, high = world.rank * len(rows) // world.size, (world.rank + 1) * len(rows) // world.size
    right = torch.zeros(1, dtype=torch.int64)
    model.eval()
    for first in range(low, high, _BATCH):
        inputs, labels = prepare(rows, np.arange(first, min(first + _BATCH, high)))
        right += torch.from_numpy(labels).eq(_predict(model, inputs, world)).sum()
    return int(world.sum(right)) / len(rows)


def _predict(model: nn.Module, inputs: tuple[torch.Tensor, ...], world: World) -> torch.Tensor:
    try:
        with torch.no_grad():
            outputs: torch.Tensor = model(*(one.to(world.device) for one in inputs))
            return outputs.argmax(dim=1).cpu()
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        layer = failing_layer(error, model)
        where = f"layer {layer}" if layer else "the choice of the highest output"
        raise EmberlineError(f"{where} failed: {error}", place=f"rank {world.rank}, evaluation") from error
