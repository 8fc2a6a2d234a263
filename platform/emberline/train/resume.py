"""Where a new world goes on: the newest state that any node's memory or the disk has, given to every rank."""

from dataclasses import dataclass

import torch

from emberline.train import snapshot
from emberline.train.checkpoint import Checkpoints, Skipped
from emberline.train.folder import RunFolder
from emberline.train.state import Learner, Tensors
from emberline.train.world import World


@dataclass(frozen=True)
class Resumed:
    """What was found.

    Attributes:
        step: steps done.
        source: `snapshot`, `checkpoint`, or `start` where nothing was there.
        skipped: what could not be used, and why.
    """

    step: int
    source: str
    skipped: tuple[Skipped, ...] = ()


def resume(run: RunFolder, checkpoints: Checkpoints, learner: Learner, world: World) -> Resumed:
    """Brings every rank's model and optimizer to the newest state; all ranks call it together."""
    found: snapshot.Snapshot | None = None
    notes: list[str] = []
    if world.local_rank == 0:
        found, notes = snapshot.read_newest(run.run_id, run.path)
    steps = world.gather(found.step if found else -1)
    newest = max(steps)
    source, tensors = steps.index(newest), found.tensors if found else None
    skipped = [Skipped("snapshot", note) for note in notes]
    loaded = None
    if world.rank == 0 and checkpoints.newest_step() > newest:
        loaded = checkpoints.load_newest(skipped)
    from_disk = world.gather(loaded.step if loaded else -1)[0]
    kind = "snapshot"
    if from_disk > newest:
        newest, source, tensors, kind = from_disk, 0, loaded.tensors if loaded else None, "checkpoint"
    if newest < 0:
        newest, source, tensors, kind = 0, 0, learner.tensors(), "start"
    learner.load(_share(tensors, source, world))
    return Resumed(newest, kind, tuple(one for many in world.gather(skipped) for one in many))


def resume_together(checkpoints: Checkpoints, learner: Learner, world: World) -> Resumed:
    """The same where the state is divided among workers: from the disk alone, each rank its part.

    Ranks read what rank 0 has verified, in a folder that all of them see.
    """
    skipped: list[Skipped] = []
    found = checkpoints.newest(skipped) if world.rank == 0 else None
    told, skipped = world.gather((found, skipped))[0]
    if told is None:
        return Resumed(0, "start", tuple(skipped))
    from emberline.train import dcp

    step, folder = told
    dcp.read(folder, learner)
    return Resumed(step, "checkpoint", tuple(skipped))


def _share(tensors: Tensors | None, source: int, world: World) -> Tensors:
    """The source's tensors, at every rank, on the CPU."""
    mine = {name: tensor.cpu().contiguous() for name, tensor in (tensors or {}).items()}
    layout = world.gather([(n, t.dtype, tuple(t.shape)) for n, t in mine.items()] if world.rank == source else None)
    if world.rank != source:
        mine = {name: torch.empty(shape, dtype=dtype) for name, dtype, shape in layout[source] or ()}
    world.broadcast_tensors(mine, source)
    return mine
