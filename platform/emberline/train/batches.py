"""Which rows a step reads, and the tensors made of them.

The step's number alone says which rows: step → (epoch, position), and the epoch's order is a function of (seed, epoch).
So a resumed run reads each row of an epoch exactly once, at any number of workers, with nothing to restore.

Legend of shapes: B rows of one shard.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emberline import assets
from emberline.data import Rows, Splits, order_of
from emberline.data.rows import telling_rows
from emberline.data.source import check_labels
from emberline.errors import EmberlineError
from emberline.recipe import Preprocessing, Recipe

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Plan:
    """How the rows of all epochs fall into steps, and each step's rows into shards.

    Attributes:
        batch_size: rows of a step over all shards; an epoch's last step has what is left.
    """

    seed: int
    num_rows: int
    epochs: int
    batch_size: int
    num_shards: int

    @property
    def steps_per_epoch(self) -> int:
        whole, left = divmod(self.num_rows, self.batch_size)
        # a lone last row joins the step before it, since batch norm cannot use one row
        joins = left == 1 and whole > 0 and self.batch_size > self.num_shards
        return whole if left == 0 or joins else whole + 1

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def epoch_of(self, step: int) -> int:
        return step // self.steps_per_epoch

    def starts_epoch(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

    def ends_epoch(self, step: int) -> bool:
        return (step + 1) % self.steps_per_epoch == 0

    def num_rows_of(self, step: int) -> int:
        start = step % self.steps_per_epoch * self.batch_size
        return self.num_rows - start if self.ends_epoch(step) else self.batch_size

    def shard_bounds(self, step: int, shard: int) -> tuple[int, int]:
        """The part of the step's rows that one shard has.

        Every shard has the same number of rows, so kernels see one shape. In an epoch's last step later shards have
        fewer or none; a last row alone joins the shard before it, since batch norm cannot use one row.
        """
        rows, micro = self.num_rows_of(step), self.batch_size // self.num_shards
        low, high = min(shard * micro, rows), min((shard + 1) * micro, rows)
        if micro > 1 and rows % micro == 1 and rows > micro:
            last = rows // micro
            if shard == last - 1:
                high = rows
            elif shard == last:
                low = high = rows
        return low, high


def plan_of(recipe: Recipe, num_rows: int, epochs: int | None = None) -> Plan:
    """The recipe's plan. Accumulated batches are one step with as many times the shards, so its sum is a tree's too."""
    settings = recipe.train
    many = settings.accumulate
    return Plan(
        recipe.seed, num_rows, epochs or settings.epochs, settings.batch_size * many, settings.virtual_shards * many
    )


class Batches:
    """Reads rows of a plan and makes tensors of them, with the one preprocessing that handlers use too."""

    def __init__(self, rows: Rows, plan: Plan, preprocessing: Preprocessing, num_classes: int, place: str) -> None:
        self.plan, self._rows, self.num_classes, self._place = plan, rows, num_classes, place
        self._prepare = Prepare(preprocessing, place)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def part(self, step: int, bounds: tuple[int, int]) -> tuple[Inputs, torch.Tensor]:
        """Inputs and labels of a part of a step's rows, at least one."""
        epoch, first = self.plan.epoch_of(step), step % self.plan.steps_per_epoch * self.plan.batch_size
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order_of(self._rows, self.plan.seed, epoch)
        return self.read(self._order[first + bounds[0] : first + bounds[1]])

    def read(self, indices: NDArray[np.int64]) -> tuple[Inputs, torch.Tensor]:
        inputs, labels = self._prepare(self._rows, indices)
        check_labels(labels, self.num_classes, f"{self._place}, among rows {_few(indices)}")
        return inputs, torch.from_numpy(labels)


class Prepare:
    """Rows by index → (inputs, labels).

    Args:
        place: the source with its split, for errors.
    """

    def __init__(self, preprocessing: Preprocessing, place: str) -> None:
        self._place = place
        self._module = assets.handler_module("ember_preprocessing")
        self._apply = self._module.Preprocessing(preprocessing.model_dump(mode="json"))

    def __call__(self, rows: Rows, indices: NDArray[np.int64]) -> tuple[Inputs, NDArray[np.int64]]:
        """Raises EmberlineError for a row that cannot be read or decoded; names its index."""
        prepared, labels = [], np.empty(len(indices), np.int64)
        for position, index in enumerate(indices.tolist()):
            try:
                instance, labels[position] = rows[index]
                prepared.append(self._apply(instance))
            except self._module.InvalidInput as error:
                hint = "the recipe's preprocessing.inputs say what each row must hold"
                raise EmberlineError(str(error), place=f"{self._place}, row {index}", hint=hint) from error
            except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
                hint = "rows[index] must give (instance, label): inputs by name, and the class's number"
                fact = f"cannot be read: {type(error).__name__}: {error}"
                raise EmberlineError(fact, place=f"{self._place}, row {index}", hint=hint) from error
        return tuple(torch.from_numpy(array) for array in self._module.stack(prepared)), labels


def check_rows(splits: Splits, recipe: Recipe) -> None:
    """Puts a few telling rows through preprocessing, before a run is made for them.

    Raises:
        EmberlineError: one cannot be used; names source, split and row.
    """
    for split in ("train", "validation"):
        rows = getattr(splits, split)
        Prepare(recipe.preprocessing, place_of(recipe, split))(rows, np.array(telling_rows(rows)))


def place_of(recipe: Recipe, split: str) -> str:
    """What errors call a split: by its source, as those of labels do."""
    return f"{recipe.data.source}, split {split!r}"


def _few(indices: NDArray[np.int64], shown: int = 3) -> str:
    return ", ".join(map(str, indices[:shown].tolist())) + (", …" if len(indices) > shown else "")
