"""The loop around one TorchServe: looks, lets `decide` say what is to be done, and does it."""

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from emberline.errors import EmberlineError
from emberline.recipe import Serve
from emberline.runlog import RunLog, warn
from emberline.serve import decide, drain, ledger, management, modellog
from emberline.serve.archives import Admitted
from emberline.serve.bringup import BringUp
from emberline.serve.decide import Key, Memory, Seen, VersionSeen
from emberline.serve.engine import Engine
from emberline.serve.fleet import Fleet
from emberline.serve.health import Metrics
from emberline.serve.ledger import Ledger
from emberline.serve.management import Described
from emberline.serve.probe import Result
from emberline.serve.status import Board, Phase, VersionStatus
from emberline.serve.tracebacks import Tracebacks

if TYPE_CHECKING:
    from emberline.serve.intake import Intake

LOOK_EVERY_S = 1.0
PROBE_EVERY_S = 5.0
# an answer that takes longer is a look without one: readiness must not lag far behind
_LOOK_TIMEOUT_S = 3.0
_MAX_PROBERS = 32
# a start is followed by the first requests, which shall have the processor to themselves
_SHARE_CLASSES_AFTER_S = 20.0


class Supervisor:
    """Keeps a fleet served by one JVM; its loop is one thread's, and the intake has another.

    Args:
        changed: called when what is served, or the JVM that does it, has changed.

    Attributes:
        stopping: set to end the loop.
        reload: set to have the settings read again.
    """

    def __init__(
        self,
        engine: Engine,
        log: RunLog,
        board: Board,
        metrics: Metrics,
        *,
        changed: Callable[["Supervisor"], None],
    ) -> None:
        self.engine, self.setup, self.log = engine, engine.setup, log
        self.board, self._metrics, self._changed = board, metrics, changed
        self.fleet = Fleet({})
        self.bringup = BringUp(engine, log)
        self.stopping, self.reload = threading.Event(), threading.Event()
        self._memory = Memory(started=0.0)
        self._tracebacks = Tracebacks(engine.setup.model_log, since=modellog.size_of(engine.setup.model_log))
        self._ledger = Ledger(engine.setup.workers.pages)
        self._results: dict[Key, Result] = {}
        self._untold = False
        self._failed: Counter[Key] = Counter()
        self._pids: dict[Key, tuple[frozenset[int], int]] = {}
        self._lost: Counter[Key] = Counter()
        self._probed_at = 0.0
        self._probers = ThreadPoolExecutor(max_workers=_MAX_PROBERS, thread_name_prefix="probe")
        self._probing: dict[Key, Future[Result]] = {}
        self._intaker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="intake")
        self._intake_step: Future[None] | None = None

    def bring_up(self, fleet: Fleet) -> None:
        """Waits for the JVM, registers every version, and returns when each has answered its probe rightly.

        Raises:
            StageFailed: TorchServe did not start, a worker cannot load an archive, or an answer is wrong.
        """
        self.fleet = fleet
        self._start_and_register()
        for one in fleet.admitted.values():
            self._results[one.key] = self.bringup.require_answer(one)
        self._probed_at = time.monotonic()
        self._look()

    def run(self, intake: "Intake", reload: Callable[[], Serve]) -> None:
        """Looks and acts until `stopping` is set."""
        while not self.stopping.wait(LOOK_EVERY_S):
            if self.reload.is_set():
                self.reload.clear()
                self._reload(reload)
            if self._untold:
                self.tell()
            self._look_after_workers()
            seen = self._look()
            self._memory, actions = decide.decide(self._memory, seen)
            for action in actions:
                self._act(action)
            if seen.answering and self._is_intake_idle():
                self._intake_step = self._intaker.submit(intake.step)

    def tell(self) -> None:
        """Has a change of what is served told; where that fails, as on a full disk, each look tries again."""
        try:
            self._changed(self)
        except OSError as error:
            if not self._untold:
                self.log.say(f"warning: what is served now cannot be told: {error.strerror}; tried again until it can")
            self._untold = True
        else:
            self._untold = False

    def drain(self, timeout_s: float, quiet_s: float) -> None:
        """Turns the health port to not ready, and waits until requests have stayed away and workers are idle."""
        self._publish("draining")
        if not self.engine.is_running:
            return
        try:
            done = drain.wait_quiet(self.setup, timeout_s=timeout_s, quiet_s=quiet_s)
        except EmberlineError as error:
            self.log.say(f"stopping without a drain: {error.fact}")
            return
        if not done:
            self.log.say(f"requests still came in after {timeout_s:g} s of draining; stopping all the same")

    def stop(self) -> None:
        self._intaker.shutdown(wait=False, cancel_futures=True)
        self.engine.stop()  # which also ends what the intake waits for
        self._intaker.shutdown()
        self._probers.shutdown(cancel_futures=True)

    def _start_and_register(self) -> None:
        self._pids.clear()
        self.engine.wait_up()
        self._memory = replace(self._memory, started=time.monotonic())
        try:
            self.bringup.bring_up((one, self._num_workers(key)) for key, one in self.fleet.admitted.items())
        except BaseException:
            self._kill()  # which also ends the registrations still under way, a SIGTERM in the midst of them included
            raise

    def _num_workers(self, key: Key) -> int:
        return self.fleet.workers.setdefault(key, self.bringup.num_workers(self.fleet.admitted[key]))

    def _last_words(self, key: Key) -> str:
        return modellog.last_words(self.setup.model_log, *key, since=self.engine.mark)

    def _is_intake_idle(self) -> bool:
        """Whether the last step is over; why it failed is told."""
        if self._intake_step is None:
            return True
        if not self._intake_step.done():
            return False
        error = self._intake_step.exception()
        self._intake_step = None
        if error is not None:  # whatever it is, it is no reason to end what serves the others
            self.log.say(f"archives are looked at again: {_words(error)}")
        return True

    def _reload(self, read: Callable[[], Serve]) -> None:
        """Takes over what may change while serving, and says what may not."""
        try:
            settings = read()
        except EmberlineError as error:
            self.log.say(f"the settings stay as they are: {error}")
            return
        now = self.setup.settings
        fixed = [
            name
            for name in type(now).model_fields
            if name != "workers" and getattr(now, name) != getattr(settings, name)
        ]
        if fixed:
            warn(f"serve.{', serve.'.join(fixed)} changed; that takes effect when `emberline serve` is started again")
        if settings.workers == self.bringup.workers:  # those that were tuned, or scaled by somebody, stay as they are
            self.log.say("settings were read again: no other number of workers")
            return
        self.log.say(f"settings were read again: {settings.workers} workers a version")
        self.bringup.workers = settings.workers
        for key in self.fleet.admitted:
            self.fleet.workers[key] = settings.workers

    # -- looking

    def _look(self) -> Seen:
        """One observation; also what the board shows next."""
        now = time.monotonic()
        if not self.engine.is_running:
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
        keys = [key for key in (*self.fleet.admitted, *self.fleet.retired) if key not in self.fleet.changing]
        found = {key: registered.get(key) for key in keys}
        for key in self.fleet.admitted.keys() & found.keys():
            self._note_lost_workers(key, found[key])
        if now - self._probed_at >= PROBE_EVERY_S:
            self._probe_aside()
        seen = {key: self._version_seen(key, one) for key, one in found.items()}
        self._publish("serving", found, seen)
        return Seen(now, running=True, answering=True, versions=seen)

    def _version_seen(self, key: Key, one: Described | None) -> VersionSeen:
        wanted = key in self.fleet.admitted
        if one is None:
            return VersionSeen(registered=False, wanted=wanted)
        result = self._result(key)
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
        gone = before - pids - self.fleet.ended
        num_lost = max(0, len(gone) - max(0, total_before - len(workers)))
        if num_lost:
            self._lost[key] += num_lost
            self.log.event(
                "worker_lost", model=key[0], version=key[1], pids=sorted(gone), last_words=self._last_words(key)
            )

    def _look_after_workers(self) -> None:
        """Ends workers that will not answer: the router then asks another one, which it would not do of a late one."""
        try:
            self.engine.look_after_parent()
        except (EmberlineError, OSError) as error:
            self.log.say(f"the process that workers are forked from could not be started: {error}; tried again")
        if time.monotonic() - self._memory.started > _SHARE_CLASSES_AFTER_S:
            self.engine.share_classes()
        for one, times in self._tracebacks.look().items():
            self.log.event("traceback", version=one.name, times=times, text=one.text)
        self._ledger.look()
        for pid, why in self._ledger.hung(self.setup.settings.response_timeout_s):
            self.log.event("worker_hung", pid=pid, why=why)
            self.log.say(f"worker {pid} is ended: {why}")
            ledger.kill(pid)

    def _result(self, key: Key) -> Result:
        return self._results.get(key, Result("busy"))

    def _probe_aside(self) -> None:
        """Sends probes without waiting for them: one that hangs must not keep the loop from seeing the rest."""
        self._probed_at = time.monotonic()
        for key, one in self.fleet.settled().items():
            if key not in self._probing or self._probing[key].done():
                self._probing[key] = self._probers.submit(self._probe, one)

    def _probe(self, one: Admitted) -> Result:
        result = self.bringup.probe(one)
        if self.fleet.settled().get(one.key) is not one:
            return result  # its content was replaced meanwhile: this says nothing of the new one
        before = self._result(one.key)
        self._results[one.key] = result
        self._failed[one.key] = decide.next_failed(self._failed[one.key], result.outcome)
        if result.outcome in ("matched", "mismatched"):
            self._metrics.probe_seconds.labels(one.model, one.version).observe(result.seconds)
        if result.outcome in ("mismatched", "failed") and result.outcome != before.outcome:
            self.log.say(f"{one.model} {one.version}: probe {result.outcome}: {result.detail}")
        return result

    def _prove(self) -> None:
        """Probes every version before the next look, to which none is ready whose answer has not matched by then."""
        versions = self.fleet.settled()
        for key in versions:
            self._failed[key] = decide.MAX_FAILED_PROBES
        results = list(self._probers.map(self._probe, versions.values()))
        all_answered = all(result.outcome in ("matched", "no probe") for result in results)
        self._probed_at = time.monotonic() if all_answered else 0.0  # else each is asked again at once

    def _publish(
        self,
        phase: Phase,
        found: Mapping[Key, Described | None] | None = None,
        seen: Mapping[Key, VersionSeen] | None = None,
    ) -> None:
        old = self.board.status
        versions = old.versions
        if found is not None and seen is not None:
            shown = {(one.model, one.version): one for one in old.versions}
            versions = tuple(
                self._version_status(key, found[key], seen[key]) if key in found else shown[key]
                for key in tuple(self.fleet.admitted)
                if key in found or key in shown  # one that is changing stays as it was shown last
            )
        elif phase == "restarting":
            versions = tuple(
                replace(one, ready=False, workers={}, problem="TorchServe does not answer") for one in old.versions
            )
        self.board.status = replace(old, phase=phase, versions=versions)

    def _version_status(self, key: Key, one: Described | None, seen: VersionSeen) -> VersionStatus:
        result = self._result(key)
        return VersionStatus(
            model=key[0],
            version=key[1],
            ready=decide.is_ready(seen),
            workers=dict(Counter(worker.status for worker in one.workers)) if one else {},
            pending=one.pending if one else 0,
            lost_workers=self._lost[key],
            problem=decide.problem(seen, result.detail),
            probe_s=result.seconds or None,
            counts=self._ledger.counts(key),
        )

    # -- acting

    def _act(self, action: decide.Action) -> None:
        match action:
            case decide.Died(back_off_s):
                self.log.say(f"TorchServe ended (code {self.engine.java_code}); starting it again in {back_off_s:g} s")
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
                self._retire(key)
            case decide.Adopt(key):
                self.fleet.admitted[key] = self.fleet.retired.pop(key)
                self._pids.pop(key, None)
                self._probe(self.fleet.admitted[key])
                self.log.say(f"{key[0]} {key[1]} was registered again")
                self.tell()

    def _restart(self) -> None:
        self.board.status = replace(
            self.board.status, phase="restarting", torchserve_restarts=self.board.status.torchserve_restarts + 1
        )
        self._kill()  # what an earlier, half-way start may have left
        if self._intake_step is not None:
            self._intake_step.exception()  # it ends soon, as nobody answers it, and must not register things as well
        try:
            self._start_and_register()
        except (EmberlineError, OSError) as error:
            # it served before, so it is tried again, each time after a longer wait
            self.log.say(f"TorchServe did not come back: {error}")
            self._kill()
            return
        self._prove()
        self.tell()
        self.log.say("TorchServe is back, with every version registered")

    def _retire(self, key: Key) -> None:
        self.fleet.leaving.discard(key)
        if (one := self.fleet.admitted.pop(key, None)) is None:
            return  # the intake has let it go meanwhile
        self.fleet.retired[key] = one
        self.log.say(f"{key[0]} {key[1]} was unregistered; it is served no longer")
        self.tell()

    def _revive(self, key: Key) -> None:
        self.log.say(f"{key[0]} {key[1]}: TorchServe has given up on its workers; starting them anew")
        try:
            management.revive(self.setup.management, *key, self._num_workers(key))
        except EmberlineError as error:
            self.log.say(f"{key[0]} {key[1]} could not be revived: {error.fact}")

    def _kill(self) -> None:
        self.engine.stop_java(grace_s=0.0)


def _words(error: BaseException) -> str:
    """What failed; of what nobody foresaw, where."""
    if isinstance(error, EmberlineError):
        return error.fact
    return str(error) if isinstance(error, OSError) else "".join(traceback.format_exception(error)).rstrip()
