"""Training, on one page."""

from dataclasses import dataclass

from emberline.data import Rows
from emberline.errors import EmberlineError
from emberline.recipe import Train
from emberline.runlog import RunLog
from emberline.train.early import judge, out_of_patience
from emberline.train.evaluate import Judge, evaluate
from emberline.train.gradients import Combined, Gradients, Job
from emberline.train.keeping import Keeping
from emberline.train.keeping_together import KeepingTogether
from emberline.train.preemption import Preemption
from emberline.train.pulse import Phase
from emberline.train.schedule import learning_rate, set_learning_rate
from emberline.train.state import Learner
from emberline.train.straggler import Stragglers
from emberline.train.update import NotFinite, Update


@dataclass(frozen=True)
class Training:
    """Everything a loop needs, made once by the worker."""

    job: Job
    settings: Train
    learner: Learner
    gradients: Gradients
    keeping: Keeping | KeepingTogether
    preemption: Preemption
    validation: Rows
    judge: Judge
    log: RunLog
    stragglers: Stragglers


def train(training: Training, first_step: int) -> int:
    """Runs the steps that are left; returns the number of steps done, which early stopping may cut short.

    Raises:
        EmberlineError: a loss or gradient is not finite, or the user's code failed; the last saved state is untouched.
    """
    plan, pulse = training.job.batches.plan, training.job.world.pulse
    update = Update(training.job, training.learner, training.settings.clip_norm)
    for step in range(first_step, plan.total_steps):
        if plan.starts_epoch(step) and ends_here(training, step):
            return step
        pulse.begin_step(step)
        set_learning_rate(training.learner.optimizer, rate(training.settings, step, plan.total_steps))
        combined = training.gradients(step)
        check(training, update, step, combined)
        with training.preemption.moving(), pulse.during(Phase.UPDATE):
            update.apply()
            keep(training, step, combined.loss)
        pulse.end_step()
        training.stragglers.after_step(step + 1)
    ends_here(training, plan.total_steps)
    return plan.total_steps


def rate(settings: Train, step: int, total_steps: int) -> float:
    base, warmup = settings.optimizer.learning_rate, settings.warmup_steps
    return learning_rate(step, total_steps, base, warmup_steps=warmup, shape=settings.schedule)


def check(training: Training, update: Update, step: int, combined: Combined) -> None:
    """Makes the gradients ready; a NaN is logged before it ends this process."""
    try:
        finite = update.check(step, combined)
    except NotFinite:
        training.log.event("not_finite", step=step)
        raise
    if not finite:
        training.log.event("overflow", step=step)


def keep(training: Training, step: int, loss: float) -> None:
    """Snapshot, log and, when it is time, checkpoint of the step that was just done."""
    plan = training.job.batches.plan
    training.learner.progress["loss"].fill_(loss)
    try:
        training.keeping.after_step(step + 1, epoch=plan.epoch_of(step), loss=loss, rows=plan.num_rows_of(step))
    except OSError as error:
        hint = "free some space or repair the folder, then start again: training goes on from the last saved state"
        place = f"{training.job.place}, step {step}"
        raise EmberlineError(f"the step could not be written down: {error}", place=place, hint=hint) from error


def ends_here(training: Training, step: int) -> bool:
    """Evaluates the epoch that ended with `step` steps done, unless that was done before; whether it is the last one.

    It is part of no step: a worker that dies in it comes back to it, and a notice in it loses no step.
    """
    epoch = training.job.batches.plan.epoch_of(step)
    learner, early = training.learner, training.settings.early_stopping
    if int(learner.progress["evaluated"]) < epoch:
        seen = evaluate(
            learner.evaluated, training.validation, training.judge, training.job.world,
            loss=training.job.loss, together=training.settings.strategy == "fsdp2",
        )  # fmt: skip
        training.log.event("epoch", epoch=epoch, step=step, **seen.facts())
        with training.preemption.moving():
            learner.progress["evaluated"].fill_(epoch)
            if early is not None:
                judge(learner, early, epoch, seen)
            training.keeping.remember()
    if out := out_of_patience(learner, early):
        best = int(learner.progress["best_epoch"])
        training.log.event("early_stop", epoch=epoch, step=step, best_epoch=best)
    return out
