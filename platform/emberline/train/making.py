"""From a recipe to what is trained: the job, the learner, and the way to its gradients."""

from pathlib import Path

from torch import nn

from emberline.data import Splits
from emberline.models import resolve
from emberline.recipe import Recipe, Train
from emberline.train.batches import batches_of
from emberline.train.ddp import Distributed
from emberline.train.gradients import Gradients, Job, VirtualShards
from emberline.train.schedule import make_optimizer, precision_of
from emberline.train.state import Learner
from emberline.train.teaching import TaughtLoss, answers_inputs, teacher_of
from emberline.train.world import World


def make_job(recipe: Recipe, search: Path, splits: Splits, model: nn.Module, world: World) -> Job:
    """Args:
    search: the recipe's folder, for a user's own loss, augmentation and teacher.
    """
    settings = recipe.train
    loss, rows, teacher = resolve(settings.loss, search), splits.train, None
    if settings.distill is not None:
        teacher, rows = teacher_of(recipe, rows, search, world.device)
        loss = TaughtLoss(settings.distill, loss)
    batches = batches_of(recipe, rows, more_inputs=answers_inputs(rows))
    augment = resolve(settings.augment, search) if settings.augment else None
    autocast, scaler = precision_of(settings.precision, world)
    return Job(model, loss, batches, world, recipe.seed, augment, autocast, scaler, teacher)


def make_learner(recipe: Recipe, job: Job) -> Learner:
    settings = recipe.train
    optimizer = make_optimizer((p for p in job.model.parameters() if p.requires_grad), settings.optimizer)
    keeps_best = settings.early_stopping is not None
    return Learner(job.model, optimizer, ema=settings.ema, scaler=job.scaler, keeps_best=keeps_best)


def place_model(settings: Train, model: nn.Module, world: World) -> nn.Module:
    """The model on this worker's device, whole or in part."""
    if settings.strategy == "replicate":
        return model.to(world.device)
    from emberline.train.sharded import shard  # seconds of imports, for this strategy alone

    return shard(model, world)


def make_gradients(recipe: Recipe, job: Job) -> Gradients:
    if recipe.train.strategy == "fsdp2":
        from emberline.train.sharded import Sharded

        return Sharded(job, recipe.train.accumulate)
    return VirtualShards(job) if recipe.train.reduce == "virtual" else Distributed(job, recipe.train.accumulate)
