"""Which rows a step reads, and the tensors made of them.

The step's number alone says which rows: step → (epoch, position), and the epoch's order is a function of (seed, epoch).
So a resumed run reads each row of an epoch exactly once, at any number of workers, with nothing to restore.

Legend of shapes: B rows of one shard.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emberline import assets
from emberline.data import Ahead, Rows, Splits, order_of
from emberline.data.rows import Instance, input_told, telling_rows, told
from emberline.data.source import check_labels
from emberline.data.targets import BadTarget, Targets, targets_of
from emberline.data.tokens import bounds_of, cut
from emberline.errors import EmberlineError
from emberline.recipe import PICTURE_TASKS, Input, Preprocessing, Recipe, Task
from emberline.train.groups import ABSENT, Groups

Inputs = tuple[torch.Tensor, ...]
Bounds = tuple[int, int]

_READING = Lock()  # rows are a user's own code, which need not bear two threads at a time; decoding is ours


@dataclass(frozen=True)
class Plan:
    """How the rows of all epochs fall into steps, and each step's rows into shards.

    Of a ranking, what is called a row here is a group of rows.

    Attributes:
        batch_size: rows of a step over all shards; an epoch's last step has what is left.
        num_shards: of a step.
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
        recipe.seed, num_rows, epochs or settings.epochs, settings.rows_per_batch * many, settings.virtual_shards * many
    )


def batches_of(
    recipe: Recipe, rows: Rows, *, epochs: int | None = None, more_inputs: tuple[Input, ...] = ()
) -> "Batches":
    """The recipe's batches of its training rows.

    Args:
        more_inputs: what rows hold beside the recipe's inputs.

    Raises:
        EmberlineError: a ranking's rows do not tell their groups.
    """
    place = place_of(recipe, "train")
    groups = Groups(rows, place) if recipe.train.task == "ranking" else None
    preprocessing = recipe.preprocessing
    preprocessing = preprocessing.model_copy(update={"inputs": (*preprocessing.inputs, *more_inputs)})
    plan = plan_of(recipe, len(rows if groups is None else groups), epochs)
    return Batches(
        rows, plan, preprocessing, len(recipe.labels), place,
        threads=recipe.data.threads, ahead=recipe.data.ahead, groups=groups, task=recipe.train.task,
    )  # fmt: skip


def num_units(recipe: Recipe, rows: Rows) -> int:
    """How many rows a plan counts; of a ranking, groups."""
    return len(Groups(rows, place_of(recipe, "train"))) if recipe.train.task == "ranking" else len(rows)


class Batches:
    """Reads rows of a plan and makes tensors of them, with the one preprocessing that handlers use too.

    Args:
        place: the source with its split, for errors.
        threads: how many read ahead and decode; 0 reads when asked.
        ahead: how many parts are kept ready.
        groups: of a ranking; the plan counts them, and labels come as (groups, rows of each).
        task: what labels are of.
    """

    def __init__(
        self, rows: Rows, plan: Plan, preprocessing: Preprocessing, num_classes: int, place: str, *,
        threads: int = 0, ahead: int = 4, groups: Groups | None = None, task: Task = "classification",
    ) -> None:  # fmt: skip
        self.plan, self.rows, self.num_classes, self._place, self._task = plan, rows, num_classes, place, task
        self._prepare, self._groups = Prepare(preprocessing, place, Targets(task, num_classes)), groups
        own = partial(order_of, rows) if groups is None else groups.order
        self._order = lru_cache(maxsize=2)(lambda epoch: own(plan.seed, epoch))
        self._parts: Callable[[int], Sequence[Bounds]] = lambda _step: ()
        self._ahead = Ahead(self._fetch_part, self._made, self._following, threads=threads, depth=ahead)

    def follow(self, parts: Callable[[int], Sequence[Bounds]]) -> None:
        """Tells which parts of a step will be asked for, in their order, so that they are read ahead."""
        self._parts = parts

    def part(self, step: int, bounds: Bounds) -> tuple[Inputs, torch.Tensor]:
        """Inputs and labels of a part of a step's rows, at least one."""
        return self._ahead((step, bounds))

    def _fetch_part(self, key: tuple[int, Bounds]) -> "Fetched":
        step, (low, high) = key
        first = step % self.plan.steps_per_epoch * self.plan.batch_size
        return self._fetch(self._order(self.plan.epoch_of(step))[first + low : first + high])

    def _following(self, key: tuple[int, Bounds]) -> tuple[int, Bounds] | None:
        step, bounds = key
        # in an epoch's last step this rank may have no rows, so the step after the next is looked at too
        for later in range(step, min(step + 3, self.plan.total_steps)):
            for one in self._parts(later):
                if one[0] < one[1] and (later > step or one[0] >= bounds[1]):
                    return later, one
        return None

    def read(self, indices: NDArray[np.int64]) -> tuple[Inputs, torch.Tensor]:
        """Inputs and labels of some rows; of a ranking, of some groups."""
        return self._made(self._fetch(indices))

    def _fetch(self, indices: NDArray[np.int64]) -> "Fetched":
        if self._groups is None:
            return self._prepare.fetch(self.rows, indices)
        return self._prepare.fetch_groups(self.rows, self._groups, indices)

    def _made(self, fetched: "Fetched") -> tuple[Inputs, torch.Tensor]:
        inputs, labels = self._prepare.made(self.rows, fetched)
        if self._task not in PICTURE_TASKS:  # their labels are looked at row by row
            own = labels != ABSENT if fetched.fills is not None else np.ones(len(labels), bool)
            check_labels(labels[own], self.num_classes, self._place, self.rows, fetched.matrix[own])
        return inputs, torch.from_numpy(labels)


@dataclass(frozen=True)
class Fetched:
    """Rows as their source gives them, not decoded yet.

    Attributes:
        indices: of the rows, (N,).
        labels: (N,).
        fills: of groups of L rows, which of them only fill up, (B, L); None where rows have no groups.
    """

    indices: NDArray[np.int64]
    instances: Sequence[Instance]
    labels: Sequence[Any]
    fills: NDArray[np.bool_] | None = None

    @property
    def matrix(self) -> NDArray[np.int64]:
        """The rows' indices in the shape of the labels that are made: (N,), or (B, L)."""
        return self.indices if self.fills is None else self.indices.reshape(self.fills.shape)


class Prepare:
    """Rows by index → (inputs, labels).

    Args:
        place: the source with its split, for errors.
        targets: what labels are; class numbers, if not given.
    """

    def __init__(self, preprocessing: Preprocessing, place: str, targets: Targets | None = None) -> None:
        self._place, self._targets = place, targets or Targets()
        self._module = assets.handler_module("ember_preprocessing")
        self._apply = self._module.Preprocessing(preprocessing.model_dump(mode="json"))
        self._bounds = bounds_of(preprocessing)

    def __call__(self, rows: Rows, indices: NDArray[np.int64]) -> tuple[Inputs, NDArray[Any]]:
        """Raises EmberlineError for a row that cannot be read or decoded; names its index."""
        return self.made(rows, self.fetch(rows, indices))

    def groups(self, rows: Rows, groups: Groups, indices: NDArray[np.int64]) -> tuple[Inputs, NDArray[np.int64]]:
        """Inputs of some groups' rows one after the other, and labels by group: (B, L), -1 where a row fills up.

        Raises:
            EmberlineError: as for rows, and for a negative label, which would pass for no row.
        """
        return self.made(rows, self.fetch_groups(rows, groups, indices))

    def fetch(self, rows: Rows, indices: NDArray[np.int64]) -> Fetched:
        """Some rows as the source gives them."""
        labels: list[Any] = []
        instances: list[Instance] = []
        with _READING:
            for index in indices.tolist():
                try:
                    instance, label = rows[index]
                    instances.append(dict(instance))
                    labels.append(label if self._targets.task in PICTURE_TASKS else int(label))
                except EmberlineError:
                    raise
                except Exception as error:  # a user's own code may raise anything, and would again
                    raise self._unreadable(rows, index, error) from error
        return Fetched(indices, instances, labels)

    def fetch_groups(self, rows: Rows, groups: Groups, indices: NDArray[np.int64]) -> Fetched:
        """The rows of some groups, all groups of one length."""
        members, fills = groups.rows_of(indices)
        return replace(self.fetch(rows, members.reshape(-1)), fills=fills)

    def made(self, rows: Rows, fetched: Fetched) -> tuple[Inputs, NDArray[Any]]:
        """Inputs and labels of fetched rows; called by several threads at a time."""
        arrays = self._decode(rows, fetched.indices, fetched.instances)
        try:
            labels = self._targets.of(fetched.labels, arrays[0].shape[-2:])
        except BadTarget as error:
            hint = "a row's label is what `emberline.data.targets` says of the recipe's task"
            place = self._where(rows, int(fetched.indices[error.row]))
            raise EmberlineError(f"label: {error}", place=place, hint=hint) from error
        # a shard's texts are as long as its longest: what it computes depends on its own rows, at any number of workers
        inputs = tuple(torch.from_numpy(array) for array in cut(arrays, self._bounds))
        if fetched.fills is None:
            return inputs, labels
        check_labels(labels, 0, self._place, rows, fetched.indices)
        return inputs, np.where(fetched.fills, ABSENT, labels.reshape(fetched.fills.shape))

    def _decode(
        self, rows: Rows, indices: NDArray[np.int64], instances: Sequence[Instance]
    ) -> tuple[NDArray[Any], ...]:
        """All at once where that can be had; else row by row, which also tells the one that is at fault."""
        with suppress(Exception):  # told below, of the row that is at fault
            if (whole := self._apply.together(instances)) is not None:
                return tuple(whole)
        prepared = []
        for index, instance in zip(indices.tolist(), instances, strict=True):
            try:
                prepared.append(self._apply(instance))
            except self._module.InvalidInput as error:
                hint = "the recipe's preprocessing.inputs say what each row must hold"
                fact = f"{input_told(rows, error.field)}: {error.fact}"
                raise EmberlineError(fact, place=self._where(rows, index), hint=hint) from error
            except Exception as error:  # nor is it known what a decoder raises at damaged bytes
                raise self._unreadable(rows, index, error) from error
        return tuple(self._module.stack(prepared))

    def _unreadable(self, rows: Rows, index: int, error: Exception) -> EmberlineError:
        hint = "rows[index] must give (instance, label): inputs by name, and the class's number"
        return EmberlineError(
            f"cannot be read: {type(error).__name__}: {error}", place=self._where(rows, index), hint=hint
        )

    def _where(self, rows: Rows, index: int) -> str:
        return f"{self._place}, {told(rows, index)}"


def check_rows(splits: Splits, recipe: Recipe) -> None:
    """Puts a few telling rows through preprocessing, before a run is made for them.

    Raises:
        EmberlineError: one cannot be used, or reading it draws random numbers; names source, split and row.
    """
    for split in ("train", "validation"):
        rows, place = getattr(splits, split), place_of(recipe, split)
        before = _random_states()
        Prepare(recipe.preprocessing, place, targets_of(recipe))(rows, np.array(telling_rows(rows)))
        if _random_states() != before:
            # threads read ahead, so such numbers would come in another order each time, and disturb dropout's
            hint = "let rows[index] give the same row each time; train.augment is the place for randomness"
            raise EmberlineError("reading a row draws random numbers", place=place, hint=hint)


def _random_states() -> tuple[object, ...]:
    """Of the three generators that a user's code may draw from unasked."""
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 - it is the global one that user code may use
    return bytes(torch.get_rng_state().numpy()), random.getstate(), bytes(state["key"]), state["pos"]


def place_of(recipe: Recipe, split: str) -> str:
    """What errors call a split: by its source, as those of labels do."""
    return f"{recipe.data.source}, split {split!r}"
