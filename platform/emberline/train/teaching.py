"""Distillation while training: a teacher's answers beside the student's, and the loss between them.

Source: Hinton et al., Distilling the Knowledge in a Neural Network (2015), section 2; of rankings Cao et al., Learning
to Rank: From Pairwise Approach to Listwise Approach (2007), section 4: probabilities over a group's rows.
Legend of shapes: B rows, K outputs; of rankings B groups of L rows each, R = B·L rows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional

from emberline import models, storage
from emberline.artifact import read_artifact
from emberline.data import Rows
from emberline.errors import EmberlineError, InvalidSetting
from emberline.models.losses import scores_of
from emberline.recipe import Input, Recipe, Teaching
from emberline.train.recorded import TEACHER_INPUT, RecordedRows, read_answers

_NOTHING = -1e9  # of a row that only fills up: no probability, and no NaN either

Inputs = tuple[torch.Tensor, ...]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Lesson(NamedTuple):
    """A student's outputs, with its teacher's on the same rows."""

    student: torch.Tensor
    teacher: torch.Tensor


class Teacher(Protocol):
    def __call__(self, inputs: Inputs) -> tuple[Inputs, torch.Tensor]:
        """What the student is given, and the teacher's answers to it."""


class LiveTeacher:
    """A net in eval mode, and in float32 as it is served; it is neither trained nor saved."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        self._net, self._device = net.eval().requires_grad_(requires_grad=False).to(device), device

    def __call__(self, inputs: Inputs) -> tuple[Inputs, torch.Tensor]:
        with torch.no_grad():
            answer = self._net(*(one.to(self._device) for one in inputs))
        first: torch.Tensor = answer[0] if isinstance(answer, tuple | list) else answer
        return inputs, first


class RecordedTeacher:
    """Answers that come with the rows, as their last input."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, inputs: Inputs) -> tuple[Inputs, torch.Tensor]:
        return inputs[:-1], inputs[-1].to(self._device)


class TaughtLoss:
    """`soft` · T² · KL(teacher ‖ student, both at temperature T) + `hard` · the recipe's own loss.

    Of outputs without a teacher's, as in evaluation, it is the recipe's own loss.
    """

    def __init__(self, settings: Teaching, hard: Loss) -> None:
        self._settings, self._hard = settings, hard

    def __call__(self, outputs: torch.Tensor | Lesson, labels: torch.Tensor) -> torch.Tensor:
        if not isinstance(outputs, Lesson):
            return self._hard(outputs, labels)
        settings = self._settings
        loss = settings.soft * settings.temperature**2 * divergence(outputs, labels, settings.temperature)
        return loss + settings.hard * self._hard(outputs.student, labels) if settings.hard else loss


def divergence(lesson: Lesson, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher ‖ student), both softened: over the classes, or over each group's rows where labels are (B, L).

    Raises:
        EmberlineError: the two answer with different numbers of classes.
    """
    if labels.ndim == 1:
        if lesson.student.shape != lesson.teacher.shape:
            own, theirs = lesson.student.shape[-1], lesson.teacher.shape[-1]
            fact = f"the student answers with {own} numbers a row, its teacher with {theirs}"
            hint = "give the student's factory as many classes (model.arguments)"
            raise EmberlineError(fact, place="train.distill", hint=hint)
        student, teacher = lesson.student.float() / temperature, lesson.teacher.float() / temperature
    else:
        student, teacher = (
            (scores_of(one) / temperature).view(labels.shape).masked_fill(labels < 0, _NOTHING) for one in lesson
        )
    return functional.kl_div(
        functional.log_softmax(student, dim=1), functional.log_softmax(teacher, dim=1),
        reduction="batchmean", log_target=True,
    )  # fmt: skip


def teacher_digest(recipe: Recipe) -> str:
    """What the teacher is known by, so that a run goes on with the one it began with; empty without one."""
    settings = recipe.train.distill
    if settings is None:
        return ""
    if settings.teacher is not None:
        return read_artifact(Path(settings.teacher))[0].digest
    path = Path(str(settings.recorded))
    return storage.content_hash(path) if path.is_file() else ""


def teacher_of(recipe: Recipe, rows: Rows, search: Path | None, device: torch.device) -> tuple[Teacher, Rows]:
    """The teacher that `train.distill` names, and the rows to train on: with recorded answers, where it names those.

    Raises:
        MissingFile, CorruptPaper: there is no such teacher, or it cannot be trusted.
        InvalidSetting: it takes other inputs, or has answered other rows.
    """
    settings = recipe.train.distill
    assert settings is not None  # noqa: S101 - asked for by recipes that have one
    if settings.teacher is None:
        answers = read_answers(Path(str(settings.recorded)), recipe, rows)
        return RecordedTeacher(device), RecordedRows(rows, answers)
    _, artifact = read_artifact(Path(settings.teacher))
    if artifact.preprocessing != recipe.preprocessing:
        hint = "record its answers with its own preprocessing: emberline record"
        raise InvalidSetting("train.distill", "teacher", settings.teacher, "one of the same preprocessing", hint=hint)
    return LiveTeacher(models.build(Path(settings.teacher), artifact, search), device), rows


def answers_inputs(rows: Rows) -> tuple[Input, ...]:
    """The further input that rows with recorded answers have; none of other rows."""
    if not isinstance(rows, RecordedRows):
        return ()
    return (Input(name=TEACHER_INPUT, shape=(len(rows[0][0][TEACHER_INPUT]),)),)
