"""The workers of one generation, and what they say to each other.

Only exchanges whose result does not depend on the number of ranks are offered for gradients: no `all_reduce`, whose
order of additions follows the ring.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from emberline.train.pulse import Phase, Pulse

T = TypeVar("T")
_CPU = torch.device("cpu")
TIMEOUT = timedelta(minutes=10)  # of a collective
_LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


class PeerLost(Exception):
    """A collective failed: some other worker is gone. Its own message tells why; this process can only end."""


@dataclass(frozen=True)
class World:
    """Who this worker is. `World()` is a single one that talks to nobody.

    Attributes:
        pulse: where it tells what it is at.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = _CPU
    pulse: Pulse = field(default_factory=Pulse, compare=False, repr=False)

    def exchange(self, rows: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Gives every rank its slice of all ranks' rows.

        Args:
            rows: (own count, width), width divisible by the number of ranks.
            counts: rows of each rank.

        Returns:
            (sum of counts, width / size): all rows in rank order, this rank's columns.
        """
        if self.size == 1:
            return rows
        width = rows.shape[1] // self.size
        outgoing = rows.view(len(rows), self.size, width).transpose(0, 1).contiguous().view(-1)
        incoming = rows.new_empty(sum(counts) * width)
        out_splits, in_splits = [len(rows) * width] * self.size, [count * width for count in counts]
        self._guard(lambda: dist.all_to_all_single(incoming, outgoing, in_splits, out_splits))
        return incoming.view(sum(counts), width)

    def collect(self, part: torch.Tensor) -> torch.Tensor:
        """All ranks' equal parts, one after the other."""
        if self.size == 1:
            return part
        whole = part.new_empty(self.size * len(part))
        self._guard(lambda: dist.all_gather_single(whole, part))
        return whole

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over ranks, in place. Whole numbers add up the same in any order; others depend on the world."""
        if self.size > 1:
            self._guard(lambda: dist.all_reduce(values))
        return values

    def gather(self, value: T) -> list[T]:
        """Small Python values of all ranks, at all ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        self._guard(lambda: dist.all_gather_object(values, value))
        return values

    def broadcast_tensors(self, tensors: dict[str, torch.Tensor], source: int) -> None:
        """Copies the source's tensors into those of all others, in place; names and shapes are equal everywhere."""
        if self.size > 1:
            for name in sorted(tensors):
                self._guard(lambda name=name: dist.broadcast(tensors[name], src=source))  # type: ignore[misc]  # bound now

    def barrier(self) -> None:
        if self.size > 1:
            self._guard(dist.barrier)

    def _guard(self, call: Callable[[], object]) -> None:
        with self.pulse.during(Phase.EXCHANGE):
            _require_peers(call)


def join_world(pulse: Pulse | None = None) -> World:
    """Joins the process group that torchrun's environment describes.

    Args:
        pulse: of this worker, which is starting until it has joined.

    Raises:
        PeerLost: some worker went away before all had met.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if size > 1:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        _require_peers(lambda: dist.init_process_group(backend, rank=rank, world_size=size, timeout=TIMEOUT))
    return World(rank, size, local_rank, device, pulse or Pulse())


def leave_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def peers_guarded() -> Iterator[None]:
    """Around torch's own collectives: raises PeerLost where one of them failed for want of a worker."""
    try:
        yield
    except RuntimeError as error:
        require_peers(error)
        raise


def require_peers(error: Exception) -> None:
    """Raises PeerLost where an error that came up in somebody else's code is a collective's, as DDP's are."""
    lost = isinstance(error, dist.DistBackendError | dist.DistNetworkError)
    if lost or (isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)):
        raise PeerLost(str(error).splitlines()[0]) from error


def _require_peers(call: Callable[[], object]) -> None:
    try:
        call()
    except RuntimeError as error:  # gloo and NCCL have no common type for a connection that broke
        raise PeerLost(str(error).splitlines()[0]) from error
