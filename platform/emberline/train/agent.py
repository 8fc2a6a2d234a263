"""torchrun's agent with warm workers: forked from a server that has torch loaded, restarted by SIGKILL at once.

The stock agent sends survivors SIGTERM and waits up to 30 s; what they would save is in shared memory already.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

from emberline.train.failure import read_failure
from emberline.train.preemption import PREEMPTED

_SHUTDOWN_S = 30


class WarmAgent(LocalElasticAgent):
    """An elastic agent for one node.

    Args:
        failures: folder where a worker tells of a failure that another try would meet again; then there is none.
        on_exit: called with rank, pid and reason of each worker that ended badly.
    """

    def __init__(self, spec: WorkerSpec, *, failures: Path, on_exit: Callable[[int, int, str], None]) -> None:
        super().__init__(spec, DefaultLogsSpecs(), start_method="forkserver", shutdown_timeout=_SHUTDOWN_S)
        self._failures, self._on_exit = failures, on_exit

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self._someone_died():
            self._kill_workers()
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state == WorkerState.FAILED:
            for rank, failure in result.failures.items():
                self._on_exit(rank, failure.pid, exit_reason(failure.exitcode))
            if read_failure(self._failures) is not None:
                self._remaining_restarts = 0
        return result

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        self._kill_workers()
        super()._stop_workers(worker_group)

    def _someone_died(self) -> bool:
        return any(process.exitcode not in (None, 0) for process in self._processes())

    def _kill_workers(self) -> None:
        for process in self._processes():
            if process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def _processes(self) -> list[Any]:
        context = getattr(self._pcontext, "_pc", None)  # torch's own has no public way to ask one worker's exit code
        return list(context.processes) if context is not None else []


def exit_reason(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return "it was told to stop and saved" if code == PREEMPTED else f"exit code {code}"
