"""`reduce: ddp`: torch's DistributedDataParallel, for when speed matters more than equal results at any world size."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from emberline.train.gradients import Combined, Job, backward, forward_loss, seed_everything, shard_seed
from emberline.train.pulse import Phase
from emberline.train.world import World

FEWEST = 2  # rows at a time: batch norm cannot use one alone


class Distributed:
    """Each rank computes its part of the step's rows, in as many pieces as batches are accumulated; DDP averages.

    The result depends on the number of workers: in rounding, in dropout, and in batch norm, which keeps rank 0's view.
    """

    def __init__(self, job: Job, accumulate: int) -> None:
        self._job, self._accumulate = job, accumulate
        self._model: nn.Module = DistributedDataParallel(job.model) if job.world.size > 1 else job.model
        job.batches.follow(self._pieces)

    def __call__(self, step: int) -> Combined:
        job, world = self._job, self._job.world
        self._model.train()
        self._model.zero_grad(set_to_none=True)
        total = job.batches.plan.num_rows_of(step)
        pieces = self._pieces(step)
        rows = pieces[-1][1] - pieces[0][0]
        own = 0.0
        for piece, bounds in enumerate(pieces):
            share = share_of(bounds[1] - bounds[0], rows, total, world)
            seed_everything(shard_seed(job.seed, step, world.rank * self._accumulate + piece))
            # DDP exchanges within forwards and backwards
            waits = nullcontext() if world.size == 1 else world.pulse.during(Phase.EXCHANGE)
            with waits, nullcontext() if piece == len(pieces) - 1 else self._alone():
                loss = forward_loss(job, step, bounds, self._model)
                backward(job, step, loss * share)
            own += float(loss.detach()) * share
        mean = world.sum(torch.tensor([own / world.size], dtype=torch.float64))
        return Combined(float(mean), {world.rank: own})

    def _pieces(self, step: int) -> list[tuple[int, int]]:
        """This rank's part of the step's rows, piece by piece."""
        low, high = rank_bounds(self._job.batches.plan.num_rows_of(step), self._job.world)
        pieces = max(1, min(self._accumulate, (high - low) // FEWEST))
        return divided(low, high, pieces)

    def _alone(self) -> AbstractContextManager[None]:
        """Without averaging over ranks, which the last piece does for all."""
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else nullcontext()


def rank_bounds(rows: int, world: World) -> tuple[int, int]:
    """A balanced part of a step's rows; all of them for every rank where there are too few to go round."""
    if rows < FEWEST * world.size:
        return 0, rows
    return world.rank * rows // world.size, (world.rank + 1) * rows // world.size


def divided(low: int, high: int, pieces: int) -> list[tuple[int, int]]:
    """Balanced pieces of a range of rows."""
    return [
        (low + piece * (high - low) // pieces, low + (piece + 1) * (high - low) // pieces) for piece in range(pieces)
    ]


def share_of(rows: int, own: int, total: int, world: World) -> float:
    """What a mean over `rows` of a rank's `own` weighs: ranks are averaged, so one with more rows weighs more."""
    return rows * (world.size / total if own < total else 1 / total)
