"""The wait for the requests under way before TorchServe is stopped, which would cut them off.

TorchServe counts what is queued and what has ever come in, but not the batch that a worker is at. So besides an empty
queue and no arrivals, the workers must have written that they are at none, and have stopped computing: what one reads
or sends before and after its batch is told by its CPU time alone.
"""

import contextlib
import time
from collections.abc import Iterable

import psutil

from emberline.serve import ledger, management, torchserve

_POLL_S = 0.05
# fraction of the time that a worker may compute and still count as idle: an idle one waits in one system call
_IDLE_SHARE = 0.03


def wait_quiet(setup: torchserve.Setup, *, timeout_s: float, quiet_s: float) -> bool:
    """Returns True when for `quiet_s` nothing came in, was queued, or was computed; False at the deadline.

    Raises:
        EmberlineError: TorchServe could not be asked.
    """
    deadline = time.monotonic() + timeout_s
    since, arrived, used_s = time.monotonic(), -1.0, 0.0
    while (now := time.monotonic()) < deadline:
        versions = management.described_all(setup.management)
        arrivals = torchserve.arrivals(setup)
        used_now_s = cpu_seconds(worker.pid for version in versions for worker in version.workers)
        quiet_for_s = now - since
        computing = used_now_s - used_s > _IDLE_SHARE * max(quiet_for_s, quiet_s)
        busy = computing or any(reading.busy_s for reading in ledger.living(setup.workers.pages))
        if arrivals != arrived or busy or any(version.pending for version in versions):
            since, arrived, used_s = now, arrivals, used_now_s
        elif quiet_for_s >= quiet_s:
            return True
        time.sleep(_POLL_S)
    return False


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that processes have used so far; those that are gone count nothing."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total
