"""Training, on one page."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from emberline.data import Rows
from emberline.errors import EmberlineError
from emberline.recipe import Preprocessing, Train
from emberline.runlog import RunLog
from emberline.train.evaluate import accuracy
from emberline.train.gradients import Combined, Gradients, Job
from emberline.train.keeping import Keeping
from emberline.train.preemption import Preemption
from emberline.train.schedule import learning_rate, set_learning_rate
from emberline.train.state import Learner


class NotFinite(EmberlineError):
    """A loss or gradient is NaN or infinite; the same steps would come to it again."""


@dataclass(frozen=True)
class Training:
    """Everything a loop needs, made once by the worker."""

    job: Job
    settings: Train
    learner: Learner
    gradients: Gradients
    keeping: Keeping
    preemption: Preemption
    validation: Rows
    preprocessing: Preprocessing
    log: RunLog
    validation_place: str


def train(training: Training, first_step: int) -> bool:
    """Runs the steps that are left; False when a preemption notice ended it early, with the state on disk.

    Raises:
        EmberlineError: a loss or gradient is not finite, or the user's code failed; the last saved state is untouched.
    """
    plan, keeping, parameters = training.job.batches.plan, training.keeping, list(training.learner.model.parameters())
    for step in range(first_step, plan.total_steps):
        set_learning_rate(training.learner.optimizer, rate(training.settings, step, plan.total_steps))
        combined = training.gradients(step, stop=training.preemption.asked)
        norm = clip(parameters, training.settings.clip_norm)
        try:
            require_finite(training.job, step, combined, norm)
        except NotFinite:
            training.log.event("not_finite", step=step)
            raise
        training.learner.optimizer.step()
        keeping.after_step(step + 1, epoch=plan.epoch_of(step), loss=combined.loss, rows=plan.num_rows_of(step))
        if plan.ends_epoch(step):
            report(training, step)
        if combined.stop:
            keeping.checkpoint(step + 1, why="preemption")
            training.log.event("preempted", step=step + 1, seconds_to_save=training.preemption.seconds_since())
            return step + 1 == plan.total_steps
    return True


def rate(settings: Train, step: int, total_steps: int) -> float:
    base, warmup = settings.optimizer.learning_rate, settings.warmup_steps
    return learning_rate(step, total_steps, base, warmup_steps=warmup, shape=settings.schedule)


def clip(parameters: list[nn.Parameter], limit: float | None) -> float:
    """The norm of all gradients together, which are scaled down where it is above the limit."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=False)
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm, foreach=False)
    return float(norm)


def require_finite(job: Job, step: int, combined: Combined, norm: float) -> None:
    """Raises before a NaN reaches a weight; names the rank and shard it came from."""
    if math.isfinite(combined.loss) and math.isfinite(norm):
        return
    own = [(job.world.rank, shard) for shard, loss in combined.own_losses.items() if not math.isfinite(loss)]
    culprits = [one for many in job.world.gather(own) for one in many]
    what = f"the loss is {combined.loss}" if not math.isfinite(combined.loss) else f"the gradients' norm is {norm}"
    place = f"rank {culprits[0][0]}, step {step}, shard {culprits[0][1]}" if culprits else f"all ranks, step {step}"
    hint = "lower train.optimizer.learning_rate, set train.clip_norm, or look for bad values in these rows"
    raise NotFinite(f"{what}; a finite number is required", place=place, hint=hint)


def report(training: Training, step: int) -> None:
    """Accuracy over the validation rows at the end of an epoch, into the log."""
    value = accuracy(
        training.learner.model,
        training.validation,
        training.preprocessing,
        training.job.world,
        place=training.validation_place,
    )
    if training.job.world.rank == 0:
        epoch = training.job.batches.plan.epoch_of(step) + 1
        training.log.event("epoch", epoch=epoch, step=step + 1, accuracy=value)
