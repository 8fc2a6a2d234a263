"""The loop around one TorchServe: looks, lets `decide` say what is to be done, and does it."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from emberline.errors import EmberlineError, StageFailed
from emberline.runlog import RunLog, warn
from emberline.serve import decide, drain, management, modellog, probe, torchserve
from emberline.serve.archives import Admitted
from emberline.serve.decide import Key, Memory, Seen, VersionSeen
from emberline.serve.health import Metrics
from emberline.serve.management import Described, ManagementRefused
from emberline.serve.probe import Result
from emberline.serve.status import Board, Phase, VersionStatus

if TYPE_CHECKING:
    from emberline.process import Child

LOOK_EVERY_S = 1.0
PROBE_EVERY_S = 5.0
# an answer that takes longer is a look without one: readiness must not lag far behind
_LOOK_TIMEOUT_S = 3.0
# after a registration, a worker that has just said READY may still answer 503 for a moment
_FIRST_ANSWER_S = 15.0


class Supervisor:
    """Keeps the admitted versions served by one JVM; used by one thread.

    Args:
        changed: called when what is served, or the JVM that does it, has changed.
    """

    def __init__(
        self,
        setup: torchserve.Setup,
        admitted: Sequence[Admitted],
        log: RunLog,
        board: Board,
        metrics: Metrics,
        *,
        changed: Callable[["Supervisor"], None],
    ) -> None:
        self.setup, self.log, self.board, self._metrics, self._changed = setup, log, board, metrics, changed
        self.admitted = {one.key: one for one in admitted}
        self._retired: dict[Key, Admitted] = {}
        self.stopping = threading.Event()
        self.child: Child | None = None
        self._memory = Memory(started=0.0)
        self._results: dict[Key, Result] = {key: Result("busy") for key in self.admitted}
        self._failed: dict[Key, int] = dict.fromkeys(self.admitted, 0)
        self._pids: dict[Key, tuple[frozenset[int], int]] = {}
        self._lost: Counter[Key] = Counter()
        self._probed_at = 0.0
        self._probers = ThreadPoolExecutor(max_workers=max(1, len(admitted)), thread_name_prefix="probe")
        self._probing: dict[Key, Future[Result]] = {}
        self._log_mark = 0

    @property
    def java_pid(self) -> int | None:
        return self.child.pid if self.child else None

    def bring_up(self) -> None:
        """Starts the JVM, registers every version, and returns when each has answered its probe rightly.

        Raises:
            StageFailed: TorchServe did not start, a worker cannot load an archive, or an answer is wrong.
        """
        self._start_and_register()
        for key, result in self._probe_all().items():
            self._require_answer(key, result)
        self._probed_at = time.monotonic()
        self._look()

    def run(self) -> None:
        """Looks and acts until `stopping` is set."""
        while not self.stopping.wait(LOOK_EVERY_S):
            seen = self._look()
            self._memory, actions = decide.decide(self._memory, seen)
            for action in actions:
                self._act(action)

    def drain(self, timeout_s: float, quiet_s: float) -> None:
        """Turns the health port to not ready, and waits until requests have stayed away and workers are idle."""
        self._publish("draining")
        if self.child is None or self.child.poll() is not None:
            return
        try:
            done = drain.wait_quiet(self.setup, timeout_s=timeout_s, quiet_s=quiet_s)
        except EmberlineError as error:
            self.log.say(f"stopping without a drain: {error.fact}")
            return
        if not done:
            self.log.say(f"requests still came in after {timeout_s:g} s of draining; stopping all the same")

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
        self._probers.shutdown(cancel_futures=True)

    def _start_and_register(self) -> None:
        self._log_mark = modellog.size_of(self.setup.model_log)
        self._pids.clear()
        self.child = torchserve.start(self.setup)
        self._memory = replace(self._memory, started=time.monotonic())
        self.log.event("torchserve_started", pid=self.child.pid)
        # one after the other, without workers: side by side TorchServe loses versions of one model
        for one in self.admitted.values():
            self._register(one)
        # the workers side by side: each start is mostly waiting for imports
        pool = ThreadPoolExecutor(max_workers=max(1, len(self.admitted)))
        try:
            list(pool.map(self._start_workers, self.admitted.values()))
        except BaseException:
            self._kill()  # which also ends the registrations still under way, a SIGTERM in the midst of them included
            raise
        finally:
            pool.shutdown()

    def _register(self, one: Admitted) -> None:
        without_workers = self.setup.settings.model_copy(update={"workers": 0})
        try:
            management.register(self.setup.management, one.file.name, without_workers)
        except ManagementRefused as refusal:
            raise self._cannot_serve(one, refusal) from refusal

    def _start_workers(self, one: Admitted) -> None:
        began = time.monotonic()
        try:
            management.scale(
                self.setup.management,
                one.model,
                one.version,
                self.setup.settings.workers,
                timeout_s=management.STARTUP_TIMEOUT_S + 10.0,  # TorchServe's own verdict comes first
            )
        except ManagementRefused as refusal:
            raise self._cannot_serve(one, refusal) from refusal
        self.log.event("registered", model=one.model, version=one.version, seconds=time.monotonic() - began)

    def _cannot_serve(self, one: Admitted, refusal: ManagementRefused) -> StageFailed:
        words = self._last_words(one.key)
        return StageFailed(
            str(one.source),
            f"TorchServe cannot serve {one.model} {one.version}: {refusal.message}"
            + (f"\nthe worker's last words:\n{words}" if words else ""),
            hint=f"all that the workers said: {self.setup.model_log}",
        )

    def _require_answer(self, key: Key, result: Result) -> None:
        one = self.admitted[key]
        deadline = time.monotonic() + _FIRST_ANSWER_S
        while result.outcome == "busy" and time.monotonic() < deadline:
            time.sleep(0.1)
            result = self._probe(one)
        if result.outcome == "no probe":
            warn(f"{one.source}: carries no probe; {one.model} {one.version} counts as ready when a worker is up")
        elif result.outcome != "matched":
            words = self._last_words(key) if result.outcome == "failed" else ""
            raise StageFailed(
                str(one.source),
                f"{one.model} {one.version} does not answer its probe: {result.detail}"
                + (f"\nthe worker's last words:\n{words}" if words else ""),
                hint="its packages may not suit this machine; measure and archive it here, or compare `emberline show`",
            )
        self.log.event("probed", model=one.model, version=one.version, outcome=result.outcome, seconds=result.seconds)

    def _last_words(self, key: Key) -> str:
        return modellog.last_words(self.setup.model_log, *key, since=self._log_mark)

    # -- looking

    def _look(self) -> Seen:
        """One observation; also what the board shows next."""
        now = time.monotonic()
        if self.child is None or self.child.poll() is not None:
            self._publish("restarting")
            return Seen(now, running=False, answering=False)
        try:
            # asked for as lists: each question about a version that is not there leaves a stack trace in the log
            described = management.described_all(self.setup.management, timeout_s=_LOOK_TIMEOUT_S)
            registered = {(one.model, one.version): one for one in described}
        except EmberlineError as error:
            self._publish("restarting")
            self.log.event("no_answer", error=error.fact)
            return Seen(now, running=True, answering=False)
        found = {key: registered.get(key) for key in (*self.admitted, *self._retired)}
        for key in self.admitted:
            self._note_lost_workers(key, found[key])
        if now - self._probed_at >= PROBE_EVERY_S:
            self._probe_aside()
        seen = {key: self._version_seen(key, one) for key, one in found.items()}
        self._publish("serving", found, seen)
        return Seen(now, running=True, answering=True, versions=seen)

    def _version_seen(self, key: Key, one: Described | None) -> VersionSeen:
        wanted = key in self.admitted
        if one is None:
            return VersionSeen(registered=False, wanted=wanted)
        result = self._results[key]
        return VersionSeen(
            registered=True,
            wanted=wanted,
            num_ready=one.num_ready,
            num_workers=len(one.workers),
            failed_probes=self._failed[key],
            mismatch=result.detail if result.outcome == "mismatched" else "",
        )

    def _note_lost_workers(self, key: Key, one: Described | None) -> None:
        """Compares the processes with those of the last look; workers taken away by a scale-down are not lost."""
        workers = one.workers if one else ()
        before, total_before = self._pids.get(key, (frozenset(), 0))
        pids = frozenset(worker.pid for worker in workers if worker.status == management.READY)
        self._pids[key] = pids, len(workers)
        gone = before - pids
        num_lost = max(0, len(gone) - max(0, total_before - len(workers)))
        if num_lost:
            self._lost[key] += num_lost
            self.log.event(
                "worker_lost", model=key[0], version=key[1], pids=sorted(gone), last_words=self._last_words(key)
            )

    def _probe_all(self) -> Mapping[Key, Result]:
        results = list(self._probers.map(self._probe, self.admitted.values()))
        return dict(zip(self.admitted, results, strict=True))

    def _probe_aside(self) -> None:
        """Sends probes without waiting for them: one that hangs must not keep the loop from seeing the rest."""
        self._probed_at = time.monotonic()
        for key, one in self.admitted.items():
            if key not in self._probing or self._probing[key].done():
                self._probing[key] = self._probers.submit(self._probe, one)

    def _probe(self, one: Admitted) -> Result:
        timeout_s = self.setup.settings.response_timeout_s + 1.0
        result = probe.ask(self.setup.inference, one.model, one.version, one.probe, timeout_s=timeout_s)
        before = self._results[one.key]
        self._results[one.key] = result
        self._failed[one.key] = decide.next_failed(self._failed[one.key], result.outcome)
        if result.outcome in ("matched", "mismatched"):
            self._metrics.probe_seconds.labels(one.model, one.version).observe(result.seconds)
        if result.outcome in ("mismatched", "failed") and result.outcome != before.outcome:
            self.log.say(f"{one.model} {one.version}: probe {result.outcome}: {result.detail}")
        return result

    def _publish(
        self,
        phase: Phase,
        found: Mapping[Key, Described | None] | None = None,
        seen: Mapping[Key, VersionSeen] | None = None,
    ) -> None:
        old = self.board.status
        versions = old.versions
        if found is not None and seen is not None:
            versions = tuple(self._version_status(key, found[key], seen[key]) for key in self.admitted)
        elif phase == "restarting":
            versions = tuple(
                replace(one, ready=False, workers={}, problem="TorchServe does not answer") for one in old.versions
            )
        self.board.status = replace(old, phase=phase, versions=versions)

    def _version_status(self, key: Key, one: Described | None, seen: VersionSeen) -> VersionStatus:
        result = self._results[key]
        return VersionStatus(
            model=key[0],
            version=key[1],
            ready=decide.is_ready(seen),
            workers=dict(Counter(worker.status for worker in one.workers)) if one else {},
            pending=one.pending if one else 0,
            lost_workers=self._lost[key],
            problem=_problem(seen, result),
            probe_s=result.seconds or None,
        )

    # -- acting

    def _act(self, action: decide.Action) -> None:
        match action:
            case decide.Died(back_off_s):
                code = self.child.poll() if self.child else None
                self.log.say(f"TorchServe ended (code {code}); starting it again in {back_off_s:g} s")
            case decide.Restart():
                self._restart()
            case decide.Kill(silent_s):
                self.log.say(f"TorchServe has not answered for {silent_s:.0f} s; ending it")
                self._kill()
            case decide.TellDead(key, seconds):
                self.log.say(f"{key[0]} {key[1]} has had no ready worker for {seconds:.0f} s:\n{self._last_words(key)}")
            case decide.TellRecovered(key, seconds):
                self.log.say(f"{key[0]} {key[1]} has a ready worker again after {seconds:.0f} s")
            case decide.Revive(key):
                self._revive(key)
            case decide.Retire(key):
                self._retired[key] = self.admitted.pop(key)
                self.log.say(f"{key[0]} {key[1]} was unregistered; it is served no longer")
                self._changed(self)
            case decide.Adopt(key):
                self.admitted[key] = self._retired.pop(key)
                self._pids.pop(key, None)
                self._probe(self.admitted[key])
                self.log.say(f"{key[0]} {key[1]} was registered again")
                self._changed(self)

    def _restart(self) -> None:
        self.board.status = replace(
            self.board.status, phase="restarting", torchserve_restarts=self.board.status.torchserve_restarts + 1
        )
        self._kill()  # what an earlier, half-way start may have left
        try:
            self._start_and_register()
        except EmberlineError as error:
            # it served before, so it is tried again, each time after a longer wait
            self.log.say(f"TorchServe did not come back: {error}")
            self._kill()
            return
        self._probe_all()  # before the next look calls anything ready
        self._probed_at = time.monotonic()
        self._changed(self)
        self.log.say("TorchServe is back, with every version registered")

    def _revive(self, key: Key) -> None:
        self.log.say(f"{key[0]} {key[1]}: TorchServe has given up on its workers; starting them anew")
        try:
            management.revive(self.setup.management, *key, self.setup.settings.workers)
        except EmberlineError as error:
            self.log.say(f"{key[0]} {key[1]} could not be revived: {error.fact}")

    def _kill(self) -> None:
        if self.child is not None:
            self.child.stop(grace_s=0.0)


def _problem(seen: VersionSeen, result: Result) -> str:
    if not seen.registered:
        return "not registered"
    if seen.num_ready == 0:
        return f"none of its {seen.num_workers} workers is ready"
    return seen.mismatch or (result.detail if seen.failed_probes else "")
