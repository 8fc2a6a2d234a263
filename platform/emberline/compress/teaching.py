"""The distill stage's parts: a student beside its teacher, and the loss between them and their features.

Source: Hinton et al., Distilling the Knowledge in a Neural Network (2015), section 2; Romero et al., FitNets (2015),
equation 3, for features.
Legend of shapes: B rows, K classes, C channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from emberline.compress import layers
from emberline.recipe import Distill
from emberline.train import teaching
from emberline.train.teaching import divergence


class Lesson(NamedTuple):
    """What a student's forward gives while it is trained."""

    student: torch.Tensor
    teacher: torch.Tensor
    feature_distance: torch.Tensor


class Pupil(nn.Module):
    """A student that is handed the teacher's answer beside its own while it is trained; in eval mode it is the student.

    Without a teacher the last input is the recorded answer. The teacher is no part of this module, so its weights are
    neither trained nor saved.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module | None, settings: Distill, example: tuple[torch.Tensor, ...]
    ) -> None:
        super().__init__()
        self.student = student
        self._teacher = (teacher,)
        self._seen: dict[tuple[str, str], torch.Tensor] = {}
        self._unwatch: list[Callable[[], None]] = []
        self._pairs = list(settings.features.items())
        self.bridges = nn.ModuleList()
        if teacher is not None and self._pairs:
            self._watch("teacher", teacher, [one for one, _ in self._pairs])
            self._watch("student", student, [one for _, one in self._pairs])
            with torch.no_grad():
                teacher.eval()(*example), student.eval()(*example)
            for theirs, own in self._pairs:
                self.bridges.append(_bridge(self._seen["student", own], self._seen["teacher", theirs]))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | Lesson:
        teacher, recorded = self._teacher[0], inputs[-1]
        own = inputs if teacher is not None else inputs[:-1]
        answer: torch.Tensor = _first(self.student(*own))
        if not self.training:
            return answer
        if teacher is not None:
            with torch.no_grad():
                recorded = _first(teacher.eval()(*own))
        return Lesson(answer, recorded, self._distance(answer))

    def close(self) -> None:
        """Leaves both nets as they were, without a trace of features being watched."""
        for unwatch in self._unwatch:
            unwatch()

    def _distance(self, like: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of the matched layers, each teacher's layer scaled to a mean square of one."""
        total = like.new_zeros(())
        for bridge, (theirs, own) in zip(self.bridges, self._pairs, strict=True):
            wanted = self._seen["teacher", theirs]
            size = wanted.square().mean().clamp(min=1e-12)
            total = total + (bridge(self._seen["student", own]) - wanted).square().mean() / size
        return total

    def _watch(self, who: str, model: nn.Module, names: list[str]) -> None:
        for name, layer in layers.matching(model, names, stage="distill", key=f"features ({who}'s layer)").items():
            hook = layer.register_forward_hook(lambda _l, _i, o, key=(who, name): self._seen.__setitem__(key, o))
            self._unwatch.append(hook.remove)


class DistillLoss:
    """`soft` · T² · KL(teacher ‖ student, both at temperature T) + `hard` · the recipe's own loss + features."""

    def __init__(self, settings: Distill, hard: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self._settings, self._hard = settings, hard

    def __call__(self, lesson: Lesson, labels_B: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
        settings, loss = self._settings, lesson.student.new_zeros(())
        if settings.soft:
            apart = divergence(teaching.Lesson(lesson.student, lesson.teacher), labels_B, settings.temperature)
            loss = loss + settings.soft * settings.temperature**2 * apart
        if settings.hard:
            loss = loss + settings.hard * self._hard(lesson.student, labels_B)
        return loss + settings.feature_weight * lesson.feature_distance if settings.features else loss


def _bridge(student: torch.Tensor, teacher: torch.Tensor) -> nn.Module:
    """From the student's feature to the teacher's shape: a 1x1 convolution, or a linear layer on the last dimension."""
    if student.dim() == 4:  # noqa: PLR2004 - batch, channels, height, width
        project: nn.Module = nn.Conv2d(student.shape[1], teacher.shape[1], 1, bias=False)
        resize = nn.AdaptiveAvgPool2d((teacher.shape[2], teacher.shape[3]))
        return nn.Sequential(project, resize) if student.shape[2:] != teacher.shape[2:] else project
    return nn.Linear(student.shape[-1], teacher.shape[-1], bias=False)


def _first(answer: Any) -> torch.Tensor:
    first: torch.Tensor = answer[0] if isinstance(answer, tuple | list) else answer
    return first
