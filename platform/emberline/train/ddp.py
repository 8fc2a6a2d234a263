"""`reduce: ddp`: torch's DistributedDataParallel, for when speed matters more than equal results at any world size."""

import torch
from torch.nn.parallel import DistributedDataParallel

from emberline.train.gradients import Combined, Job, forward_loss, seed_everything, shard_seed
from emberline.train.world import World


class Distributed:
    """Each rank computes its part of the step's rows at once; DDP averages.

    The result depends on the number of workers: in rounding, in dropout, and in batch norm, which keeps rank 0's view.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model = DistributedDataParallel(job.model) if job.world.size > 1 else job.model

    def __call__(self, step: int, *, stop: bool) -> Combined:
        job, world = self._job, self._job.world
        self._model.train()
        self._model.zero_grad(set_to_none=True)
        total = job.batches.plan.num_rows_of(step)
        bounds = rank_bounds(total, world)
        seed_everything(shard_seed(job.seed, step, world.rank))
        loss = forward_loss(job, step, bounds, self._model)
        share = (bounds[1] - bounds[0]) * world.size / total if total >= world.size else 1.0
        (loss * share).backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
        report = torch.tensor([float(loss.detach()) * share / world.size, float(stop)], dtype=torch.float64)
        world.sum(report)
        return Combined(float(report[0]), bool(report[1] > 0), {world.rank: float(loss.detach())})


def rank_bounds(rows: int, world: World) -> tuple[int, int]:
    """A balanced part of a step's rows; all of them for every rank where there are fewer rows than ranks."""
    if rows < world.size:
        return 0, rows
    return world.rank * rows // world.size, (world.rank + 1) * rows // world.size
