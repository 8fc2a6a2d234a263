"""What is to be done about what was seen of TorchServe: pure, so that every case can be told as a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from emberline.serve.probe import Outcome

Key = tuple[str, str]  # model, version

# TorchServe starts a dead worker again by itself, after 1, 1, 2, 3, 5, 8… s: shorter outages are not worth a word
TELL_AFTER_S = 10.0
# … and gives up after `maxRetryTimeoutInSec` (300): from then on nobody but us would bring it back
REVIVE_AFTER_S = 330.0
# a JVM that runs but does not answer its management API this long is taken for hung
SILENT_S = 20.0
# a JVM that ran this long before it died starts the back-off anew
STABLE_S = 120.0
MAX_BACK_OFF_S = 30.0
# probes without an answer in a row before a version counts as not ready; a wrong answer counts at once
MAX_FAILED_PROBES = 2


@dataclass(frozen=True)
class VersionSeen:
    """One version at one moment.

    Attributes:
        registered: TorchServe knows it.
        wanted: it is ours to keep; not so after somebody unregistered it.
        failed_probes: probes in a row that got no answer.
        mismatch: what a probe got instead of the expected answer; empty when it matched.
    """

    registered: bool
    num_ready: int = 0
    num_workers: int = 0
    failed_probes: int = 0
    mismatch: str = ""
    wanted: bool = True


@dataclass(frozen=True)
class Seen:
    """TorchServe at one moment.

    Attributes:
        running: the JVM has not ended.
        answering: its management API answered; without an answer nothing is known of the versions.
    """

    now: float
    running: bool
    answering: bool
    versions: Mapping[Key, VersionSeen] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """What one decision leaves for the next.

    Attributes:
        started: when the JVM that runs now was started.
        quick_deaths: deaths in a row of JVMs that had not run `STABLE_S`.
        restart_at: when the next JVM is to be started; None while one runs.
        silent_since: since when the JVM runs without answering.
        dead_since: since when a version has had no ready worker.
        told: versions whose outage was told.
    """

    started: float
    quick_deaths: int = 0
    restart_at: float | None = None
    silent_since: float | None = None
    dead_since: Mapping[Key, float] = field(default_factory=dict)
    told: frozenset[Key] = frozenset()


@dataclass(frozen=True)
class Died:
    """The JVM ended; it will be started again in `back_off_s`."""

    back_off_s: float


@dataclass(frozen=True)
class Restart:
    """Start the JVM and register every version."""


@dataclass(frozen=True)
class Kill:
    """End a JVM that no longer answers."""

    silent_s: float


@dataclass(frozen=True)
class TellDead:
    """A version has had no ready worker for `seconds`."""

    key: Key
    seconds: float


@dataclass(frozen=True)
class TellRecovered:
    key: Key
    seconds: float


@dataclass(frozen=True)
class Revive:
    """Start a version's workers anew: TorchServe has given up on them."""

    key: Key


@dataclass(frozen=True)
class Retire:
    """Somebody unregistered a version through the management API; it is no longer ours to keep."""

    key: Key


@dataclass(frozen=True)
class Adopt:
    """Somebody registered a retired version again: it is ours to keep once more."""

    key: Key


Action = Died | Restart | Kill | TellDead | TellRecovered | Revive | Retire | Adopt


def back_off_s(quick_deaths: int) -> float:
    """0.5, 1, 2, 4, … up to `MAX_BACK_OFF_S` seconds after the first, second, third, … quick death; 0 for none."""
    return 0.0 if quick_deaths == 0 else min(MAX_BACK_OFF_S, 0.5 * 2.0 ** (quick_deaths - 1))


def is_ready(seen: VersionSeen) -> bool:
    """Whether a version answers, and rightly."""
    return seen.registered and seen.num_ready > 0 and not seen.mismatch and seen.failed_probes < MAX_FAILED_PROBES


def problem(seen: VersionSeen, detail: str) -> str:
    """Why a version is not ready; `detail` is what its last probe came back with."""
    if not seen.registered:
        return "not registered"
    if seen.num_ready == 0:
        return f"none of its {seen.num_workers} workers is ready"
    return seen.mismatch or (detail if seen.failed_probes else "")


def decide(memory: Memory, seen: Seen) -> tuple[Memory, tuple[Action, ...]]:
    """The actions that one observation asks for, and what to remember."""
    if not seen.running:
        return _about_death(memory, seen)
    if not seen.answering:
        return _about_silence(memory, seen)
    memory = replace(memory, silent_since=None, restart_at=None)
    actions: list[Action] = []
    for key, version in seen.versions.items():
        memory, found = _about_version(memory, seen.now, key, version)
        actions += found
    return memory, tuple(actions)


def _about_death(memory: Memory, seen: Seen) -> tuple[Memory, tuple[Action, ...]]:
    if memory.restart_at is None:
        deaths = 0 if seen.now - memory.started >= STABLE_S else memory.quick_deaths + 1
        wait_s = back_off_s(deaths)
        return replace(memory, quick_deaths=deaths, restart_at=seen.now + wait_s, silent_since=None), (Died(wait_s),)
    if seen.now < memory.restart_at:
        return memory, ()
    return replace(memory, started=seen.now, restart_at=None, dead_since={}, told=frozenset()), (Restart(),)


def _about_silence(memory: Memory, seen: Seen) -> tuple[Memory, tuple[Action, ...]]:
    since = memory.silent_since if memory.silent_since is not None else seen.now
    if seen.now - since < SILENT_S:
        return replace(memory, silent_since=since), ()
    return replace(memory, silent_since=None), (Kill(seen.now - since),)


def _about_version(memory: Memory, now: float, key: Key, version: VersionSeen) -> tuple[Memory, tuple[Action, ...]]:
    if not version.registered:
        return _forget(memory, key), (Retire(key),) if version.wanted else ()
    if not version.wanted:
        return memory, (Adopt(key),)
    since = memory.dead_since.get(key)
    if version.num_ready > 0:
        told = since is not None and key in memory.told
        return _forget(memory, key), (TellRecovered(key, now - since),) if told and since is not None else ()
    return _about_outage(memory, now, key, since)


def _about_outage(memory: Memory, now: float, key: Key, since: float | None) -> tuple[Memory, tuple[Action, ...]]:
    if since is None:
        return replace(memory, dead_since={**memory.dead_since, key: now}), ()
    if now - since >= REVIVE_AFTER_S:
        # counted anew from here, so that a version that cannot be revived is tried again, and not at every look
        return replace(memory, dead_since={**memory.dead_since, key: now}), (Revive(key),)
    if now - since >= TELL_AFTER_S and key not in memory.told:
        return replace(memory, told=memory.told | {key}), (TellDead(key, now - since),)
    return memory, ()


def _forget(memory: Memory, key: Key) -> Memory:
    dead_since = {other: since for other, since in memory.dead_since.items() if other != key}
    return replace(memory, dead_since=dead_since, told=memory.told - {key})


def next_failed(failed_probes: int, outcome: Outcome) -> int:
    """Probes without an answer in a row, after one more: a full queue says nothing either way."""
    if outcome == "busy":
        return failed_probes
    return failed_probes + 1 if outcome == "failed" else 0
