"""Archives that came, changed or went while serving: taken in, put in place of the old, or let go.

It looks at files, not at events: a step that failed, or was never made, is made by the next one. A file counts when two
looks found it the same, so one that is being copied is left alone.
"""

import filecmp
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from emberline import process, signing
from emberline.errors import EmberlineError, StageFailed
from emberline.runlog import RunLog
from emberline.serve import ledger, management, torchserve
from emberline.serve.archives import Admitted
from emberline.serve.bringup import BringUp
from emberline.serve.fleet import Fleet
from emberline.serve.ledger import Key
from emberline.serve.management import READY

Stamp = tuple[int, int, int, int | None]

# steps (a second each) without a request before a version whose archive is gone is unregistered
_QUIET_STEPS = 2
# before an archive that could not be brought up is tried again, the first time and at most
_FIRST_WAIT_S = 5.0
_LAST_WAIT_S = 300.0
_SCALE_DRAIN_S = 5.0
_ROLL_TIMEOUT_S = 60.0
_MANIFEST = Path("MAR-INF", "MANIFEST.json")


def stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """What tells that an archive, or its signature, is another file than before."""
    found = {}
    for path in paths:
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        try:
            signature = signing.signature_of(path).stat().st_mtime_ns
        except FileNotFoundError:
            signature = None
        found[path] = (facts.st_ino, facts.st_size, facts.st_mtime_ns, signature)
    return found


class Intake:
    """Brings what TorchServe serves to what the files and settings ask for, a step at a time; used by one thread.

    Args:
        look: finds the archives that there may be, and the folders that are away, which tell nothing.
        admit: lets one into the private store, with a prefix to its copy's name.
        taken: stamps of the archives that were admitted at the start.
        restart: ends the JVM; its next one registers the fleet as it is then.
        changed: called when what is served has changed.
    """

    def __init__(
        self,
        fleet: Fleet,
        bringup: BringUp,
        log: RunLog,
        *,
        look: Callable[[], tuple[Iterable[Path], Collection[Path]]],
        admit: Callable[[Path, str], Admitted],
        taken: dict[Path, Stamp],
        restart: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._fleet, self._bringup, self._log = fleet, bringup, log
        self._look, self._admit, self._restart, self._changed = look, admit, restart, changed
        self._taken, self._seen = dict(taken), dict(taken)
        self._away: Collection[Path] = ()
        self._quiet: dict[Key, tuple[float, int]] = {}
        self._waiting: dict[Path, tuple[Stamp, float, float]] = {}
        self._scaled: dict[Key, int] = dict(fleet.workers)
        self._rolling: set[Key] = set()  # some of their workers may have the content that was replaced

    @property
    def _setup(self) -> torchserve.Setup:
        return self._bringup.setup

    def step(self) -> None:
        """One look at the files, and what it asks for.

        Raises:
            StageFailed: TorchServe gave no answer; the next step tries again.
        """
        before, now = self._seen, self._stamps_now()
        self._seen = now
        for path in [path for path in self._taken if path not in now and path not in before]:
            del self._taken[path]
            self._let_go(path)
        for path, stamp in now.items():
            if self._taken.get(path) != stamp and before.get(path) == stamp and not self._is_to_wait(path, stamp):
                self._take(path, stamp)
        for key in tuple(self._fleet.leaving):
            self._unregister_when_quiet(key)
        self._scale()

    def _stamps_now(self) -> dict[Path, Stamp]:
        """Of the archives that there are; those of a folder that is away are taken to be as they were."""
        found, away = self._look()
        for folder in set(away) - set(self._away):
            self._log.say(f"{folder} is not there; what it held is served on")
        self._away = away
        return stamps(found) | {path: stamp for path, stamp in self._taken.items() if path.parent in away}

    # -- archives that came or changed

    def _take(self, path: Path, stamp: Stamp) -> None:
        try:
            one = self._admit(path, "next-")
        except EmberlineError as error:
            self._taken[path] = stamp
            self._log.say(f"not taken in: {error}")
            return
        except OSError as error:
            self._try_later(path, stamp, error)
            return
        try:
            self._place(one)
        except (EmberlineError, OSError) as error:
            self._try_later(path, stamp, error)
            return
        finally:
            one.file.unlink(missing_ok=True)
        self._waiting.pop(path, None)
        self._taken[path] = stamp
        for key, other in self._fleet.admitted.items():
            if other.source == path and key != one.key:  # the file held another version before
                self._fleet.leaving.add(key)

    def _try_later(self, path: Path, stamp: Stamp, error: Exception) -> None:
        """It may be the machine's fault and not the archive's: each time it is tried after a longer wait."""
        _, _, before_s = self._waiting.get(path, (stamp, 0.0, _FIRST_WAIT_S / 2))
        wait_s = min(_LAST_WAIT_S, 2 * before_s)
        self._waiting[path] = (stamp, time.monotonic() + wait_s, wait_s)
        self._log.say(f"not taken in, to be tried again in {wait_s:g} s: {error}")

    def _is_to_wait(self, path: Path, stamp: Stamp) -> bool:
        failed, until, _ = self._waiting.get(path, (None, 0.0, 0.0))
        if failed == stamp:
            return time.monotonic() < until
        self._waiting.pop(path, None)
        return False

    def _place(self, one: Admitted) -> None:
        current = self._fleet.admitted.get(one.key)
        if current is None:
            self._bring_in(one)
        elif current.source != one.source and current.source.is_file():
            raise EmberlineError(f"holds {one.model} {one.version}, as {current.source} does", place=one.source)
        elif filecmp.cmp(current.file, one.file, shallow=False):
            self._fleet.admitted[one.key] = same = replace(current, source=one.source)
            if one.key in self._rolling:
                self._roll_out(same)
        else:
            self._replace(current, one)
        self._fleet.leaving.discard(one.key)

    def _bring_in(self, one: Admitted) -> None:
        """A version that was not served: announced when it has answered its probe."""
        final = replace(one, file=one.file.replace(self._setup.store / f"{one.model}-{one.version}.mar"))
        with self._fleet.change(one.key):
            try:
                workers = self._fleet.workers.setdefault(one.key, self._bringup.num_workers(one))
                self._bringup.bring_up([(final, workers)])
                self._bringup.require_answer(final)
                self._fleet.retired.pop(one.key, None)
                self._fleet.admitted[one.key] = final
                self._rolling.discard(one.key)
            except EmberlineError:
                self._fleet.workers.pop(one.key, None)
                management.drain_and_unregister(self._setup.management, *one.key, settle_s=0.0)
                raise
        self._changed()
        self._log.say(f"{one.model} {one.version} is served now, from {one.source}")

    def _replace(self, current: Admitted, one: Admitted) -> None:
        """Other content for a version that is served: tried aside, then put under its workers, one after the other."""
        folder = model_folder(self._setup.work, one.key)  # before there is another of that version
        self._try_aside(one)
        if folder is None or one.handler != current.handler:
            # TorchServe keeps the handler's name in memory: only a new JVM takes another
            self._fleet.admitted[one.key] = replace(one, file=one.file.replace(current.file))
            self._rolling.discard(one.key)
            self._log.say(f"{one.model} {one.version} has another handler; starting TorchServe anew with it")
            self._restart()
            return
        with self._fleet.change(one.key):
            self._rolling.add(one.key)
            swap(folder, one.file)
            self._fleet.admitted[one.key] = final = replace(one, file=one.file.replace(current.file))
            self._roll_out(final)

    def _roll_out(self, one: Admitted) -> None:
        """Has every worker take the content that was put in place; what breaks off here, a later step does anew."""
        with self._fleet.change(one.key):
            self._roll(one.key)
            self._bringup.require_answer(one)
        self._rolling.discard(one.key)
        self._changed()
        self._log.say(f"{one.model} {one.version} is served with other content now, from {one.source}")

    def _try_aside(self, one: Admitted) -> None:
        """Has a worker load the archive under a name nobody asks for, and compares its answer."""
        name = f"{one.model}--next"
        try:
            self._bringup.register(one, name=name)
            self._bringup.start_workers(one, 1, name=name)
            self._bringup.require_answer(one, name=name)
        finally:
            management.drain_and_unregister(self._setup.management, name, one.version, settle_s=0.0)

    def _roll(self, key: Key) -> None:
        """Ends a version's workers one after the other; TorchServe starts each again, from the folder as it is now."""
        for worker in self._described(key).workers:
            if worker.status == READY:
                self._end(worker.pid)
                replaced = partial(self._is_replaced, key, worker.pid)
                process.wait_until(replaced, _ROLL_TIMEOUT_S, f"a new worker of {key[0]}")

    def _is_replaced(self, key: Key, pid: int) -> bool:
        now = self._described(key)
        return now.num_ready >= now.min_workers and all(worker.pid != pid for worker in now.workers)

    def _described(self, key: Key) -> management.Described:
        found = management.describe(self._setup.management, *key)
        if found is None:
            raise StageFailed(f"{key[0]} {key[1]}", "was unregistered meanwhile")
        return found

    def _end(self, pid: int) -> None:
        self._fleet.ended.add(pid)
        ledger.kill(pid)

    # -- archives that went

    def _let_go(self, path: Path) -> None:
        for key, one in self._fleet.admitted.items():
            if one.source == path and not path.is_file():
                self._fleet.leaving.add(key)
                self._log.say(f"{path} is gone; {key[0]} {key[1]} is served until nobody asks for it")

    def _unregister_when_quiet(self, key: Key) -> None:
        arrivals = torchserve.arrivals(self._setup, key)
        before, steps = self._quiet.get(key, (-1.0, 0))
        busy = arrivals != before or any(
            reading.key == key and reading.busy_s for reading in ledger.living(self._setup.workers.pages)
        )
        self._quiet[key] = arrivals, 0 if busy else steps + 1
        if busy or steps + 1 < _QUIET_STEPS:
            return
        try:
            with self._fleet.change(key):
                management.drain_and_unregister(self._setup.management, *key, settle_s=0.0, timeout_s=1.0)
                gone = self._fleet.admitted.pop(key, None)
        except StageFailed:
            return  # a request came in after all
        self._fleet.leaving.discard(key)
        del self._quiet[key]
        if gone is None:  # somebody unregistered it through the management API: it is retired already
            return
        gone.file.unlink(missing_ok=True)
        self._fleet.workers.pop(key, None)
        self._changed()
        self._log.say(f"{key[0]} {key[1]} is served no longer")

    # -- workers

    def _scale(self) -> None:
        """Workers as the settings ask for them, or as somebody last asked for them through the management API."""
        for described in management.described_all(self._setup.management):
            key, had = (described.model, described.version), described.min_workers
            wanted = self._fleet.workers.get(key)
            if key not in self._fleet.settled() or wanted is None:
                continue
            if wanted != had and self._scaled.get(key) == wanted:  # it was so once: the change is somebody's wish
                self._fleet.workers[key] = wanted = had
                self._log.say(f"{key[0]} {key[1]} was scaled to {had} workers")
            if wanted != had:
                self._fleet.changing.add(key)
                try:
                    self._scale_one(key, wanted)
                finally:
                    self._fleet.changing.discard(key)
                self._log.say(f"{key[0]} {key[1]} has {wanted} workers now; it had {had}")
            self._scaled[key] = wanted

    def _scale_one(self, key: Key, workers: int) -> None:
        address = self._setup.management
        try:
            management.scale(address, *key, workers, timeout_s=_SCALE_DRAIN_S)
        except StageFailed:  # it always has requests under way
            management.shed(address, *key, workers, self._end)


def model_folder(work: Path, key: Key) -> Path | None:
    """Where TorchServe unpacked a version; None where that cannot be told."""
    found = []
    for manifest in torchserve.unpacked(work).glob(f"*/{_MANIFEST}"):
        model = json.loads(manifest.read_bytes())["model"]
        if (model["modelName"], str(model["modelVersion"])) == key:
            found.append(manifest.parents[1])
    return found[0] if len(found) == 1 else None


def swap(folder: Path, archive: Path) -> None:
    """Puts another archive's files in a folder's place; what runs keeps the files it has open."""
    fresh, old = folder.with_name(f"{folder.name}.next"), folder.with_name(f"{folder.name}.old")
    try:
        with zipfile.ZipFile(archive) as files:
            files.extractall(fresh)  # each was checked when the archive was admitted
    except BaseException:  # a full disk: half of an archive beside the whole one would be taken for a second of it
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old)
