"""Metric and loss over rows, by all ranks; the same bits in any world.

Rows are cut into batches of one size, which ranks take in turn: a kernel's rounding may depend on the shape of its
batch, so that must not depend on the number of ranks. The batches' values are added in their order; of metrics that no
sum over rows gives, what was found in each picture is put together in that order.

Legend of shapes: B groups of L rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from emberline.data import Rows
from emberline.data.targets import Targets, targets_of
from emberline.errors import EmberlineError
from emberline.models import failing_layer
from emberline.models.average_precision import Found, found_in, mean_average_precision
from emberline.models.losses import scores_of
from emberline.models.mean_iou import Counts, counted, mean_iou
from emberline.recipe import METRICS, PICTURE_TASKS, Preprocessing, Recipe
from emberline.train.batches import Prepare, place_of
from emberline.train.groups import Groups
from emberline.train.pulse import Phase
from emberline.train.world import World, require_peers

_BATCH = 128

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What was seen of some rows.

    Attributes:
        metric: `accuracy`, `ndcg` of a ranking, `map50` of detection, `mean_iou` of segmentation.
        value: the metric; the more the better.
        loss: mean over the rows, of a ranking over the groups; NaN where no loss was asked for.
    """

    metric: str
    value: float
    loss: float

    def facts(self) -> dict[str, float]:
        return {self.metric: self.value, "loss": self.loss}


@dataclass(frozen=True)
class Judge:
    """What evaluations of one recipe have in common.

    Attributes:
        place: the source with its split, for errors.
        targets: what rows are labelled with.
        top: of a ranking, how many of the first items count; None for other tasks.
    """

    preprocessing: Preprocessing
    place: str
    targets: Targets
    top: int | None = None


@dataclass(frozen=True)
class Pictures:
    """What was found in a batch of pictures.

    Attributes:
        found: of detection, picture by picture.
        counts: of segmentation, over all of them.
    """

    found: tuple[Found, ...] = ()
    counts: Counts | None = None


def judge_of(recipe: Recipe, split: str = "validation") -> Judge:
    settings = recipe.train
    top = settings.top if settings.task == "ranking" else None
    return Judge(recipe.preprocessing, place_of(recipe, split), targets_of(recipe), top)


def evaluate(
    model: nn.Module, rows: Rows, judge: Judge, world: World | None = None, *,
    loss: Loss | None = None, together: bool = False,
) -> Evaluation:  # fmt: skip
    """The metric over all rows, and the mean of `loss` where one is given; leaves the model in eval mode.

    Accuracy is the fraction of rows whose highest output is their label, NDCG the mean over a ranking's groups. Average
    precision and intersection over union are those of all pictures together.

    Args:
        together: ranks run equally many forwards, as a model needs whose forwards are collectives.

    Raises:
        EmberlineError: the forward failed, or there are no rows.
    """
    world = world or World()
    if len(rows) == 0:
        raise EmberlineError("there are zero rows to evaluate on", place=judge.place)
    prepare = Prepare(judge.preprocessing, judge.place, judge.targets)
    groups = None if judge.top is None else Groups(rows, judge.place)
    units, batch = (len(rows), _BATCH) if groups is None else (len(groups), max(1, _BATCH // groups.length))
    starts = range(0, units, batch)
    values = torch.zeros(len(starts), dtype=torch.float64)
    losses = torch.zeros(len(starts), dtype=torch.float64)
    pictures: dict[int, Pictures] = {}
    model.eval()
    turns = -(-len(starts) // world.size) * world.size if together else len(starts)
    for turn in range(world.rank, turns, world.size):
        number = turn % len(starts)
        indices = np.arange(starts[number], min(starts[number] + batch, units))
        with world.pulse.during(Phase.EXCHANGE if together else Phase.EVALUATION):
            inputs, targets = prepare(rows, indices) if groups is None else prepare.groups(rows, groups, indices)
            seen = _judge(model, inputs, torch.from_numpy(targets), world, loss=loss, judge=judge)
        if turn < len(starts):
            values[number], losses[number], pictures[number] = seen
    # each number is one rank's, and zero at the others: a sum that no order changes
    world.sum(values)
    world.sum(losses)
    mean = sum(losses.tolist()) / units if loss is not None else float("nan")
    task = judge.targets.task
    value = _of_pictures(world.gather(pictures)) if task in PICTURE_TASKS else sum(values.tolist()) / units
    return Evaluation(METRICS[task], value, mean)


def _judge(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, world: World, *,
    loss: Loss | None, judge: Judge,
) -> tuple[float, float, Pictures]:  # fmt: skip
    """Rows that were right, or the sum of groups' NDCG; the sum of their losses; and what was found in pictures."""
    value, pictures = 0.0, Pictures()
    try:
        with torch.no_grad():
            outputs: torch.Tensor = model(*(one.to(world.device) for one in inputs))
            if judge.targets.task in PICTURE_TASKS:
                pictures = _look_at(outputs.float().cpu().numpy(), labels.numpy(), judge.targets)
            elif judge.top is None:
                value = float(outputs.argmax(dim=1).cpu().eq(labels).sum())
            else:
                value = float(ndcg(scores_of(outputs).cpu().view(labels.shape), labels, judge.top).sum())
            spent = float(loss(outputs, labels.to(world.device))) * len(labels) if loss is not None else 0.0
            return value, spent, pictures
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        require_peers(error)
        layer = failing_layer(error, model)
        where = f"layer {layer}" if layer else "the choice of the highest output, or the loss,"
        raise EmberlineError(f"{where} failed: {error}", place=f"rank {world.rank}, evaluation") from error


def _look_at(outputs: NDArray[np.float32], labels: NDArray[Any], targets: Targets) -> Pictures:
    pairs = zip(outputs, labels, strict=True)
    if targets.task == "detection":
        return Pictures(found=tuple(found_in(one, truth, targets.num_classes) for one, truth in pairs))
    return Pictures(counts=np.sum([counted(one, truth) for one, truth in pairs], axis=0))


def _of_pictures(of_ranks: list[dict[int, Pictures]]) -> float:
    """The metric of what all ranks saw."""
    seen = {number: one for of_rank in of_ranks for number, one in of_rank.items()}
    pictures = [seen[number] for number in sorted(seen)]
    counts = [one.counts for one in pictures if one.counts is not None]
    if counts:
        return mean_iou(np.sum(counts, axis=0))
    return mean_average_precision([found for one in pictures for found in one.found])


def ndcg(scores_BL: torch.Tensor, labels_BL: torch.Tensor, top: int) -> torch.Tensor:  # noqa: N803 - shape suffixes
    """Normalised discounted cumulative gain of each group's first `top` rows, (B,); 1 where nothing is relevant.

    Args:
        labels_BL: gains, 0 or more; -1 where a group has fewer rows. Equal scores keep the rows' order.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques (2002), with log2(1 + rank).
    """
    absent = labels_BL < 0
    gains = labels_BL.clamp(min=0).double()
    order = scores_BL.double().masked_fill(absent, -torch.inf).argsort(dim=1, descending=True, stable=True)
    discount = 1 / torch.arange(2, min(top, gains.shape[1]) + 2, dtype=torch.float64).log2()
    reached = gains.gather(1, order)[:, : len(discount)] @ discount
    best = gains.sort(dim=1, descending=True).values[:, : len(discount)] @ discount
    return torch.where(best > 0, reached / best.clamp(min=1e-12), 1.0)
