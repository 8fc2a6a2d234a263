"""A step's gradients: computed shard by shard, summed in the fixed tree or by DistributedDataParallel.

Legend of shapes: N numbers in the flat vector of one shard.
"""

import hashlib
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.amp import GradScaler

from emberline.errors import EmberlineError
from emberline.models import failing_layer
from emberline.models.build import parameters_dtype
from emberline.train import tree
from emberline.train.batches import Batches, Inputs
from emberline.train.pulse import Phase
from emberline.train.teaching import Lesson, Teacher
from emberline.train.world import World, require_peers

Loss = Callable[..., torch.Tensor]
Augment = Callable[[Inputs], Inputs]


@dataclass(frozen=True)
class Job:
    """What is trained: the pieces that do not change while it goes on.

    Attributes:
        autocast: the type that forwards compute in, where it is not the weights' own.
        scaler: of the loss; with float16 its gradients would vanish otherwise.
        teacher: whose answers the loss is given beside the model's outputs, if there is one.
    """

    model: nn.Module
    loss: Loss
    batches: Batches
    world: World
    seed: int
    augment: Augment | None = None
    autocast: torch.dtype | None = None
    scaler: GradScaler | None = None
    teacher: Teacher | None = None

    @property
    def place(self) -> str:
        return f"rank {self.world.rank}"


@dataclass(frozen=True)
class Combined:
    """What a step's ranks agree on.

    Attributes:
        loss: mean over the step's rows, the same number at every rank.
        own_losses: what this rank computed itself, by shard; to name who brought a NaN.
    """

    loss: float
    own_losses: dict[int, float]


class OutOfMemory(EmberlineError):
    """Of this machine or a device."""


class Gradients(Protocol):
    def __call__(self, step: int) -> Combined:
        """Leaves the step's gradients in the parameters, the same at every rank."""


class VirtualShards:
    """Gradients, batch-norm statistics and loss of V shards, summed in a tree that only V determines.

    Each shard starts from the same buffers and a seed of its own, f(seed, step, shard), and is weighted by its share of
    the step's rows. Buffers that the shards changed move by the weighted mean of the changes.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._parameters = [p for p in job.model.parameters() if p.requires_grad]
        self._dtype = parameters_dtype(job.model)
        self._floats = [b for b in job.model.buffers() if b.is_floating_point()]
        self._integers = [b for b in job.model.buffers() if not b.is_floating_point()]
        self._one_kind = len({one.dtype for one in self._floats}) == 1
        plan, world = job.batches.plan, job.world
        if world.size > plan.num_shards:
            raise EmberlineError(
                f"{world.size} workers for {plan.num_shards} virtual shards; a worker computes at least one",
                place="train.virtual_shards",
                hint=f"start at most {plan.num_shards} workers, or a new run with more virtual shards",
            )
        root = (0, plan.num_shards)
        owned = [tree.shards_of(rank, world.size, plan.num_shards) for rank in range(world.size)]
        self._nodes = [list(tree.whole_nodes(one, root)) for one in owned]
        self._own_losses: dict[int, float] = {}
        shards = range(*owned[world.rank])
        job.batches.follow(lambda step: [plan.shard_bounds(step, shard) for shard in shards])

    def __call__(self, step: int) -> Combined:
        job, world = self._job, self._job.world
        self._own_losses = {}
        start = [buffer.clone() for buffer in self._floats]
        integers = [buffer.clone() for buffer in self._integers]

        def leaf(shard: int) -> torch.Tensor:
            return self._shard(step, shard, start, integers)

        job.model.train()
        sums = [tree.fold(node, leaf, torch.Tensor.add_) for node in self._nodes[world.rank]]
        padding = -len(sums[0]) % world.size
        rows = torch.stack([nn.functional.pad(one, (0, padding)) for one in sums])
        mine = world.exchange(rows, [len(nodes) for nodes in self._nodes])
        done = dict(zip((node for nodes in self._nodes for node in nodes), mine, strict=True))
        flat = world.collect(tree.finish((0, job.batches.plan.num_shards), done, torch.Tensor.add_))
        if self._someone_idles(step):
            # counters (batches seen by a batch norm) advance alike wherever there were rows; rank 0 always has some
            world.broadcast_tensors({str(index): buffer for index, buffer in enumerate(self._integers)}, source=0)
        return self._spread(flat, start)

    def _shard(self, step: int, shard: int, start: list[torch.Tensor], integers: list[torch.Tensor]) -> torch.Tensor:
        """One shard's flat vector: weighted gradients, weighted changes of buffers, weighted loss."""
        job = self._job
        low, high = job.batches.plan.shard_bounds(step, shard)
        if low == high:
            size = sum(p.numel() for p in self._parameters) + sum(b.numel() for b in self._floats) + 1
            return torch.zeros(size, dtype=self._dtype, device=job.world.device)
        weight = (high - low) / job.batches.plan.num_rows_of(step)
        with torch.no_grad():
            for buffer, value in zip(self._floats + self._integers, start + integers, strict=True):
                buffer.copy_(value)
        for parameter in self._parameters:
            parameter.grad = None
        seed_everything(shard_seed(job.seed, step, shard))
        loss = forward_loss(job, step, (low, high), job.model) * weight
        self._own_losses[shard] = float(loss.detach()) / weight
        backward(job, step, loss)
        with torch.no_grad():
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
            # equal values count as unchanged, infinities included (a mask of -inf minus itself is NaN)
            changes = [
                torch.where(now == then, 0, (now - then) * weight)
                for now, then in zip(self._together(self._floats), self._together(start), strict=True)
            ]
            pieces = [piece.reshape(-1).to(self._dtype) for piece in (*gradients, *changes, loss.detach())]
            return torch.cat(pieces)

    def _together(self, buffers: list[torch.Tensor]) -> list[torch.Tensor]:
        """Buffers of one kind as one, since operations on many small ones cost more than what they compute."""
        return [torch.cat([one.reshape(-1) for one in buffers])] if self._one_kind else buffers

    def _spread(self, flat: torch.Tensor, start: list[torch.Tensor]) -> Combined:
        position = 0

        def take(like: torch.Tensor) -> torch.Tensor:
            nonlocal position
            piece = flat[position : position + like.numel()].view_as(like)
            position += like.numel()
            return piece

        for parameter in self._parameters:
            parameter.grad = take(parameter).clone()
        with torch.no_grad():
            for buffer, then in zip(self._floats, start, strict=True):
                buffer.copy_(then + take(buffer))
        return Combined(float(flat[position]), self._own_losses)

    def _someone_idles(self, step: int) -> bool:
        """Whether some rank has no row of this step, as happens at the end of an epoch."""
        plan, world = self._job.batches.plan, self._job.world
        first = tree.shards_of(world.size - 1, world.size, plan.num_shards)[0]
        low, high = plan.shard_bounds(step, first)
        return low == high


def shard_seed(seed: int, step: int, shard: int) -> int:
    """The random seed of one shard of one step: 63 bits of a hash, so that neighbours have nothing in common."""
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, step, shard), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seeds torch, and the two other generators that a user's augmentation may use."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed makes a stack trace for a GPU that is not used yet
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - it is the global one that user code may rely on


def forward_loss(job: Job, step: int, bounds: tuple[int, int], model: nn.Module) -> torch.Tensor:
    """The mean loss over a part of the step's rows.

    Args:
        bounds: positions of the part within the step.
        model: the job's model, or what wraps it.

    Raises:
        EmberlineError: the user's code failed; names rank, step and layer.
    """
    place, pulse = f"{job.place}, step {step}", job.world.pulse
    pulse.computes(bounds[1] - bounds[0])
    try:
        with pulse.during(Phase.DATA):
            inputs, labels = job.batches.part(step, bounds)
    except EmberlineError as error:
        raise EmberlineError(error.fact, place=f"{place}, {error.place}", hint=error.hint) from error
    outputs: Any = None
    try:
        if job.augment is not None:
            inputs = job.augment(inputs)
        own, answers = (inputs, None) if job.teacher is None else job.teacher(inputs)
        with torch.autocast(job.world.device.type, job.autocast, enabled=job.autocast is not None):
            outputs = model(*(one.to(job.world.device) for one in own))
            told = outputs if answers is None else Lesson(outputs, answers)
            loss = job.loss(told, labels.to(job.world.device))
    except EmberlineError:
        raise
    except Exception as error:
        require_memory(place, error)
        require_peers(error)
        _require_outputs(job, outputs, labels, place, error)
        # a user's model, loss or augmentation may fail in any way; which layer it was is what helps
        layer = failing_layer(error, job.model)
        where = f"layer {layer}" if layer else "the loss or augmentation"
        shapes = ", ".join(str(list(one.shape)) for one in inputs)
        raise EmberlineError(
            f"{where} failed: {_first_line(error)}", place=place, hint=f"the inputs were of shape {shapes}"
        ) from error
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        raise EmberlineError("the loss is no tensor of one number", place=place, hint="return the mean over the rows")
    return loss.reshape(()).float() if job.autocast is not None else loss.reshape(())


def backward(job: Job, step: int, loss: torch.Tensor) -> None:
    """Adds the gradients of the loss, scaled where float16 asks for it, to the parameters'.

    Raises:
        EmberlineError: it failed; names rank and step.
    """
    try:
        (loss if job.scaler is None else job.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]  # torch's
    except RuntimeError as error:
        place = f"{job.place}, step {step}"
        require_memory(place, error)
        require_peers(error)
        hint = "an operation has no derivative, or none that is deterministic; the text names it"
        raise EmberlineError(f"the backward failed: {_first_line(error)}", place=place, hint=hint) from error


def require_memory(place: str, error: Exception) -> None:
    """Says so where an error means that memory, of this machine or of a device, was short."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in text:
        hint = "lower train.batch_size, or raise train.virtual_shards: one shard is in memory at a time"
        raise OutOfMemory("there is not enough memory for a shard", place=place, hint=hint) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _require_outputs(job: Job, outputs: Any, labels: torch.Tensor, place: str, error: Exception) -> None:
    """Says so where the loss failed since the model has fewer outputs than there are labels."""
    classified = isinstance(outputs, torch.Tensor) and outputs.ndim == 2 and labels.ndim == 1  # noqa: PLR2004 - rows, classes
    if not classified or outputs.shape[1] > int(labels.max()):
        return
    needed = job.batches.num_classes or int(labels.max()) + 1
    hint = "give the model as many outputs as the recipe has labels (model.arguments, or its last layer)"
    fact = f"the model gives {outputs.shape[1]} outputs for {needed} labels"
    raise EmberlineError(fact, place=place, hint=hint) from error
