"""What every stage may read: the recipe, rows as the model takes them, the target, the log."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from emberline import assets, data
from emberline.compress.target import Target
from emberline.data import Splits, tokens
from emberline.data.prepared import Arrays, prepare
from emberline.errors import EmberlineError
from emberline.models import quality
from emberline.recipe import Compress, ExportBackend, Recipe
from emberline.runlog import RunLog

_SEED = 0


@dataclass
class Context:
    """Of one `emberline compress`; rows are read and prepared when a stage first asks for them."""

    recipe: Recipe
    settings: Compress
    search: Path | None
    target: Target
    backends: tuple[ExportBackend, ...]
    log: RunLog
    max_batch: int = 64
    scratch: Path = field(default_factory=Path)
    trained: Callable[[], nn.Module] = lambda: _missing_teacher()  # noqa: PLW0108 - defined below
    """The trained model, built anew: the teacher of a distillation that names none."""

    @cached_property
    def splits(self) -> Splits:
        return data.load_checked(self.recipe, self.search)

    @cached_property
    def validation(self) -> tuple[Arrays, NDArray[Any]]:
        """All validation rows: inputs and labels."""
        return prepare(self.recipe, self.splits.validation, range(len(self.splits.validation)))

    @cached_property
    def test(self) -> tuple[Arrays, NDArray[Any]]:
        """All test rows, for the report alone; no stage and no gate looks at them."""
        return prepare(self.recipe, self.splits.test, range(len(self.splits.test)))

    def training_rows(self, count: int) -> Arrays:
        """A fixed random choice of training rows, for calibration and for batch-norm statistics."""
        rows = self.splits.train
        chosen = np.random.default_rng(_SEED).permutation(len(rows))[:count]
        return prepare(self.recipe, rows, [int(index) for index in chosen])[0]

    @cached_property
    def bounds(self) -> tokens.Bounds:
        """Of each input how many tokens a batch may have; None where its rows are all of one shape."""
        return tokens.bounds_of(self.recipe.preprocessing)

    def cut(self, arrays: Arrays) -> Arrays:
        """A batch as a model is given it: texts as long as the longest."""
        return tokens.cut(arrays, self.bounds)

    def example(self, rows: int, at: tokens.Length = "longest") -> tuple[torch.Tensor, ...]:
        """Real rows to trace with, repeated where the validation split has fewer.

        Args:
            at: how long texts are: as the longest of these rows, or cut or padded to the least or most there may be.
        """
        inputs, _ = self.validation
        arrays = [np.resize(array, (rows, *array.shape[1:])) for array in inputs]
        return tuple(torch.from_numpy(array) for array in tokens.cut(arrays, self.bounds, at))

    def accuracy(self, program: Callable[..., Any]) -> float:
        return float(self.quality(program).mean())

    def quality(self, program: Callable[..., Any]) -> NDArray[np.float64]:
        """For each validation row, how good the first output is, 0 to 1, as `emberline.models.quality` has it."""
        inputs, labels = self.validation
        outputs = predictions(program, inputs, self.max_batch, self.cut)
        return quality.of_rows(self.recipe.train.task, outputs, labels)


def _missing_teacher() -> nn.Module:
    raise EmberlineError(
        "there is no trained artifact to teach", place="stage distill", hint="name one: teacher: FOLDER"
    )


def predictions(
    program: Callable[..., Any], inputs: Arrays, batch: int, cut: Callable[[Arrays], Arrays] = lambda arrays: arrays
) -> NDArray[Any]:
    """First output of a module or exported program for all rows, `batch` at a time: a traced one takes no more.

    Args:
        cut: what is done to each batch first.
    """
    outputs, outputs_of = [], assets.handler_module("ember_backends").outputs_of
    with torch.no_grad():
        for start in range(0, len(inputs[0]), batch):
            piece = cut(tuple(array[start : start + batch] for array in inputs))
            answer = program(*[torch.from_numpy(array) for array in piece])
            outputs.append(outputs_of(answer)[0].numpy())
    return np.concatenate(outputs)
