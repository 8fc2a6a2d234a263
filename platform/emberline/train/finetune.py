"""Training further in this process: what compression does to a pruned model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from emberline.data import Splits, check_splits
from emberline.models import resolve
from emberline.recipe import Recipe
from emberline.train import schedule
from emberline.train.batches import batches_of
from emberline.train.determinism import deterministic
from emberline.train.evaluate import evaluate, judge_of
from emberline.train.gradients import Job, VirtualShards
from emberline.train.state import Learner
from emberline.train.update import Update
from emberline.train.world import World


@dataclass(frozen=True)
class Finetuned:
    """What came of it: steps done, loss of the last step, and the metric over the validation rows.

    Attributes:
        metric: as of an `Evaluation`.
    """

    steps: int
    loss: float
    metric: str
    value: float

    def facts(self) -> dict[str, float]:
        return {"steps": self.steps, "loss": self.loss, self.metric: self.value}


def finetune(
    model: nn.Module,
    recipe: Recipe,
    splits: Splits,
    *,
    epochs: int,
    learning_rate: float,
    search: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    loss: Callable[..., torch.Tensor] | None = None,
) -> Finetuned:
    """Trains `model` in place for some epochs, with the recipe's loss, batch, shards, optimizer and schedule.

    The same shards and seeds as in a run, so the result is the same, bit for bit, each time. Leaves it in eval mode.

    Args:
        search: the recipe's folder, for a loss or augmentation of the user's own.
        progress: called after each step with steps done, steps in all, and the loss.
        loss: in place of the recipe's, of outputs and labels.

    Raises:
        EmberlineError: zero rows, labels out of range, a failing forward, a loss that is not finite.
    """
    check_splits(splits, len(recipe.labels), recipe.data.source, recipe.train.task)
    settings = recipe.train
    batches = batches_of(recipe, splits.train, epochs=epochs)
    plan = batches.plan
    augment = resolve(settings.augment, search) if settings.augment else None
    autocast, scaler = schedule.precision_of(settings.precision, World())
    job = Job(model, loss or resolve(settings.loss, search), batches, World(), recipe.seed, augment, autocast, scaler)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with deterministic(settings.threads), torch.random.fork_rng():
        optimizer = schedule.make_optimizer(parameters, settings.optimizer)
        gradients, update = (
            VirtualShards(job),
            Update(job, Learner(model, optimizer, scaler=scaler), settings.clip_norm),
        )
        last = float("nan")
        for step in range(plan.total_steps):
            schedule.set_learning_rate(optimizer, _rate(step, plan.total_steps, learning_rate, recipe))
            combined = gradients(step)
            update.check(step, combined)
            update.apply()
            last = combined.loss
            if progress is not None:
                progress(step + 1, plan.total_steps, last)
        seen = evaluate(model, splits.validation, judge_of(recipe))
        return Finetuned(plan.total_steps, last, seen.metric, seen.value)


def _rate(step: int, total: int, base: float, recipe: Recipe) -> float:
    warmup = min(recipe.train.warmup_steps, total // 10)  # a short training has no time for a run's warm-up
    return schedule.learning_rate(step, total, base, warmup_steps=warmup, shape=recipe.train.schedule)
