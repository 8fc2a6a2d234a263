"""`strategy: fsdp2`: weights, gradients and optimizer divided among the workers, for models beyond one device.

Torch's own `fully_shard` gathers the weights of one layer at a time. The order of rows stays a function of the step, so
a run goes on at another number of workers with the rows it would have had; its bits depend on that number.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from emberline.train.ddp import FEWEST, divided, rank_bounds, share_of
from emberline.train.gradients import Combined, Job, backward, forward_loss, seed_everything, shard_seed
from emberline.train.pulse import Phase
from emberline.train.state import Tensors
from emberline.train.world import World, peers_guarded


def shard(model: nn.Module, world: World) -> nn.Module:
    """Divides the model among all workers, in place: each layer of a list or sequence by itself, then what is left.

    It comes from the CPU layer by layer, so no device ever holds all of it.
    """
    if not dist.is_initialized():  # a worker alone
        store = dist.HashStore()  # type: ignore[attr-defined]  # torch leaves it out of its types
        dist.init_process_group(backend_of(world), store=store, rank=0, world_size=1)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def layers(model: nn.Module) -> list[nn.Module]:
    """The elements of the outermost lists and sequences that have parameters."""
    found: list[nn.Module] = []
    for child in model.children():
        if isinstance(model, nn.ModuleList | nn.Sequential):
            found += [child] if any(True for _ in child.parameters()) else []
        else:
            found += layers(child)
    return found


def backend_of(world: World) -> str:
    return "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"


class Sharded:
    """Each rank computes its part of the step's rows, in as many pieces as batches are accumulated; FSDP averages.

    Buffers, such as batch norm's statistics, are rank 0's.
    """

    def __init__(self, job: Job, accumulate: int) -> None:
        self._job, self._accumulate = job, accumulate
        job.batches.follow(self._pieces)

    def __call__(self, step: int) -> Combined:
        job, world = self._job, self._job.world
        model = job.model
        assert isinstance(model, FSDPModule)  # noqa: S101 - `shard` made it one
        job.model.train()
        job.model.zero_grad(set_to_none=True)
        total = job.batches.plan.num_rows_of(step)
        pieces = self._pieces(step)
        rows = pieces[-1][1] - pieces[0][0]
        own = 0.0
        for piece, bounds in enumerate(pieces):
            share = share_of(bounds[1] - bounds[0], rows, total, world)
            seed_everything(shard_seed(job.seed, step, world.rank * self._accumulate + piece))
            model.set_requires_gradient_sync(piece == len(pieces) - 1)
            with world.pulse.during(Phase.EXCHANGE):  # both gather weights, so any rank may hold them up
                loss = forward_loss(job, step, bounds, job.model)
                backward(job, step, loss * share)
            own += float(loss.detach()) * share
        world.broadcast_tensors(dict(job.model.named_buffers()), source=0)
        mean = world.sum(torch.tensor([own / world.size], dtype=torch.float64))
        return Combined(float(mean), {world.rank: own})

    def _pieces(self, step: int) -> list[tuple[int, int]]:
        """This rank's part of the step's rows; equally many pieces at every rank, since each is a collective."""
        total, world = self._job.batches.plan.num_rows_of(step), self._job.world
        low, high = rank_bounds(total, world)
        least = total if total < FEWEST * world.size else total // world.size
        pieces = max(1, min(self._accumulate, least // FEWEST))
        return divided(low, high, pieces)


def whole(tensors: Tensors, world: World) -> Tensors:
    """The tensors in one piece, on rank 0's CPU; nothing at other ranks. All ranks call it together."""
    found = {}
    with peers_guarded():
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if world.rank == 0:
                found[name] = full.detach().cpu()
    return found
