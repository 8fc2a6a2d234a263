"""Distillation: a student trained on what a teacher answers, in this process by the trainer's own steps."""

import copy
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from emberline import models
from emberline.artifact import read_artifact
from emberline.compress import masks
from emberline.compress.context import Context
from emberline.compress.inheriting import inherit
from emberline.compress.program import require_forward
from emberline.compress.state import State
from emberline.compress.teaching import DistillLoss, Pupil
from emberline.data import Splits
from emberline.errors import InvalidSetting, StageFailed
from emberline.recipe import Distill, Input, Recipe
from emberline.train.finetune import finetune
from emberline.train.recorded import TEACHER_INPUT, RecordedRows, read_answers


def distill(state: State, settings: Distill, context: Context) -> State:
    """Trains the student; a new one takes the place of the net and of all that pruning did to it.

    Raises:
        InvalidSetting: a layer of `features` is not there, or the recorded answers are of other rows.
        StageFailed: teacher and student do not answer alike.
    """
    student, example = _student(state, settings, context), context.example(2)
    require_forward(student, example, "distill")
    teacher, recipe, splits = _teacher(settings, context), context.recipe, context.splits
    if teacher is None:
        recipe, splits = _with_recorded(str(settings.recorded), context)
        width = splits.train[0][0][TEACHER_INPUT].shape[0]
    else:
        require_forward(teacher, example, "distill")
        width = _width(teacher, example)
    if _width(student, example) != width:
        fact = f"the student answers with {_width(student, example)} numbers a row, its teacher with {width}"
        raise StageFailed(
            "distill", fact, hint="give the student's factory as many classes (distill.student.arguments)"
        )
    if settings.augment is not None:
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"augment": settings.augment})})
    pupil = Pupil(student, teacher, settings, example)
    loss = DistillLoss(settings, models.resolve(recipe.train.loss, context.search))
    with (
        closing(pupil),
        context.log.progress("distill", total=None) as advance,
        masks.zeros_kept(student, state.masked if settings.student is None else ()),
    ):
        facts = finetune(
            pupil, recipe, splits, epochs=settings.epochs, learning_rate=settings.learning_rate, search=context.search,
            progress=lambda _step, steps, value: advance(1, steps, loss=value), loss=loss,
        )  # fmt: skip
    note = {
        **facts.facts(),
        "teacher": settings.recorded or settings.teacher or "trained",
        "teacher_parameters": sum(one.numel() for one in teacher.parameters()) if teacher is not None else None,
    }
    after = state.after(model=student.eval(), quantized=None, precision="fp32", calibration_rows=0, note=note)
    return after if settings.student is None else replace(after, factory=settings.student, edits=(), masked=())


def _student(state: State, settings: Distill, context: Context) -> nn.Module:
    if settings.student is None:
        return copy.deepcopy(state.model)  # the state that came in stays as it is
    with torch.random.fork_rng():
        torch.manual_seed(context.recipe.seed)
        student = models.create(settings.student, context.search)
    if settings.inherit:
        inherit(student, context.trained(), settings.inherit)
    return student


def _teacher(settings: Distill, context: Context) -> nn.Module | None:
    """The net that teaches, or None where its answers are on record."""
    if settings.recorded is not None:
        return None
    if settings.teacher is None:
        return context.trained()
    _, artifact = read_artifact(Path(settings.teacher))
    if artifact.preprocessing != context.recipe.preprocessing:
        hint = "record its answers with its own preprocessing: emberline record"
        raise InvalidSetting("stage distill", "teacher", settings.teacher, "one of the same preprocessing", hint=hint)
    return models.build(Path(settings.teacher), artifact, context.search)


def _with_recorded(path: str, context: Context) -> tuple[Recipe, Splits]:
    """Recipe and rows with the recorded answers as one more input; validation rows have none and need none."""
    recipe, splits = context.recipe, context.splits
    if recipe.train.augment is not None:
        hint = "use a live teacher (leave distill.recorded out), or set train.augment to null"
        raise InvalidSetting("stage distill", "recorded", path, "no train.augment beside it", hint=hint)
    answers = read_answers(Path(path), recipe, splits.train)
    shape = (answers.shape[1],)
    preprocessing = recipe.preprocessing
    inputs = (*preprocessing.inputs, Input(name=TEACHER_INPUT, shape=shape))
    nothing = np.broadcast_to(np.zeros(shape, np.float32), (len(splits.validation), *shape))
    rows = replace(
        splits, train=RecordedRows(splits.train, answers), validation=RecordedRows(splits.validation, nothing)
    )
    return recipe.model_copy(update={"preprocessing": preprocessing.model_copy(update={"inputs": inputs})}), rows


def _width(model: nn.Module, example: tuple[torch.Tensor, ...]) -> int:
    with torch.no_grad():
        answer = model.eval()(*example)
    return int((answer[0] if isinstance(answer, tuple | list) else answer).shape[-1])
