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
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException

from emberline.train.failure import fenced, read_failure
from emberline.train.hang import Hang, Watch
from emberline.train.membership import Rendezvous
from emberline.train.notice import Notice
from emberline.train.preemption import PEER_LOST, PREEMPTED

_SHUTDOWN_S = 30
_EXIT_BARRIER_S = 30  # for agents whose workers are done to wait for the others, of which one may just have died


class WarmAgent(LocalElasticAgent):
    """An elastic agent for one node.

    Args:
        notice: the launcher's own; workers are told of it.
        failures: folder where a worker tells of a failure that another try would meet again; then there is none.
        on_exit: called with rank, pid and reason of each worker that ended badly.
        on_lost: called with the nodes that the others gave up, when this one's workers were stopped because of it.
        on_hang: called with the rank and the account of each worker that hangs, while it can still be looked at.
        watch: tells who hangs; None watches nobody.
    """

    def __init__(
        self, spec: WorkerSpec, *, failures: Path, notice: Notice, on_exit: Callable[[int, int, str], None],
        on_lost: Callable[[list[str]], None], on_hang: Callable[[int, Hang], None], watch: Watch | None,
    ) -> None:  # fmt: skip
        super().__init__(
            spec, DefaultLogsSpecs(log_dir=str(failures / "elastic")), start_method="forkserver",
            exit_barrier_timeout=_EXIT_BARRIER_S, shutdown_timeout=_SHUTDOWN_S,
        )  # fmt: skip
        self._failures, self._notice, self._on_exit, self._on_lost = failures, notice, on_exit, on_lost
        self._on_hang, self._watch, self._hung = on_hang, watch, set[int]()

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if number := self._notice.number:
            raise SignalException("a notice", sigval=signal.Signals(number))
        dead = self._dead()
        if dead:
            self._kill_workers()
            self._suspect(dead)
            if (told := fenced(self._failures)) and (lost := self._lost_members()):
                # a worker noticed before this agent did that the others go on without them: no failure of the run's
                for path in told:
                    path.unlink()
                self._join_again(worker_group, lost)
                return RunResult(state=WorkerState.HEALTHY)
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state == WorkerState.HEALTHY and (lost := self._lost_members()):
            # no retry: nothing failed here, and a world of which one is out must not go on, whoever it was
            self._join_again(worker_group, lost)
        if result.state == WorkerState.HEALTHY and self._watch is not None:
            self._kill_hung(worker_group, self._watch)
        if result.state == WorkerState.FAILED:
            for local_rank, pid, code in root_causes(dead):
                reason = "it hung, and was killed to be replaced" if pid in self._hung else exit_reason(code)
                self._on_exit(worker_group.workers[local_rank].global_rank, pid, reason)
            if read_failure(self._failures) is not None:
                self._remaining_restarts = 0
        return result

    def _kill_hung(self, worker_group: WorkerGroup, watch: Watch) -> None:
        for hang in watch.look(self._alive()):
            self._hung.add(hang.pid)
            self._on_hang(worker_group.workers[hang.local_rank].global_rank, hang)
            os.kill(hang.pid, signal.SIGKILL)  # its death is seen at the next look, and dealt with like any other

    def _join_again(self, worker_group: WorkerGroup, lost: list[str]) -> None:
        self._kill_workers()
        self._on_lost(lost)
        self._restart_workers(worker_group)

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        self._kill_workers()
        super()._stop_workers(worker_group)

    def _suspect(self, dead: list[tuple[int, int, int]]) -> None:
        """Where nobody here is to blame, somebody elsewhere is gone."""
        handler = self._worker_group.spec.rdzv_handler
        if isinstance(handler, Rendezvous) and all(code == PEER_LOST for _, _, code in dead):
            handler.suspect()

    def _lost_members(self) -> list[str]:
        handler = self._worker_group.spec.rdzv_handler
        return handler.lost_members() if isinstance(handler, Rendezvous) else []

    def _alive(self) -> dict[int, int]:
        """Pid of each worker that has not ended, by local rank."""
        return {rank: process.pid for rank, process in enumerate(self._processes()) if process.exitcode is None}

    def _dead(self) -> list[tuple[int, int, int]]:
        """Local rank, pid and exit code of each worker that ended badly."""
        codes = [(rank, process.pid, process.exitcode) for rank, process in enumerate(self._processes())]
        return [(rank, pid, code) for rank, pid, code in codes if code not in (None, 0)]

    def _kill_workers(self) -> None:
        for process in self._processes():
            if process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def _processes(self) -> list[Any]:
        context = getattr(self._pcontext, "_pc", None)  # torch's own has no public way to ask one worker's exit code
        return list(context.processes) if context is not None else []


def root_causes(dead: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Those of the dead that did not just lose another one; all, where nobody here is to blame."""
    return [one for one in dead if one[2] != PEER_LOST] or dead


def exit_reason(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    known = {PREEMPTED: "it was told to stop and saved", PEER_LOST: "it lost a worker of another node"}
    return known.get(code, f"exit code {code}")
