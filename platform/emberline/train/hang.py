"""Which worker of a node hangs, by what each told last and what the system says of its process.

A rank that hangs makes all others wait for it in the next collective; so standing still there is no fault. At fault is
who stands still anywhere else, or whose process was stopped. Only where all wait and nobody is at fault does the
collective itself hang.

How long something may take follows from the run: a few times the median of the last steps. Phases of which that says
nothing (start, first step, data, evaluation, saving) have limits of their own. A process that computes is given more
time than one that does nothing at all.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from emberline.train.pulse import Beat, Board, Phase

STOPPED_S = 2.0  # a process stopped by a signal does nothing, so there is nothing to measure
LEAST_S = 3.0  # for a step's own computing without the processor, however short steps are
_STEPS, _LONGEST = 4.0, 2.0  # times the median of the last steps, times the longest of them
_BUSY_STEPS = 20.0  # times the median, for one that computes
_SLOW_S = 60.0  # data, updates, and a step that uses the processor
_EVALUATION_S = 120.0  # of one batch of it
_START_S = 600.0  # also of a first step, which may compile, and of saving
_BUSY = 0.2  # of the time that it could have had
_QUIET_S, _AWAY_S = 1.0, 1.0

Share = tuple[float, float]  # seconds on the processor, seconds of waiting for it


@dataclass(frozen=True)
class Look:
    """One worker at one moment.

    Attributes:
        beat: None for one that has told nothing yet.
        quiet_s: since its last progress.
        stopped_s: for how long its process is known to have been stopped by a signal.
        busy: whether it, or what it started, has used the processor since.
    """

    local_rank: int
    pid: int
    beat: Beat | None = None
    quiet_s: float = 0.0
    stopped_s: float = 0.0
    busy: bool = False


@dataclass(frozen=True)
class Hang:
    """A worker that is to be replaced, and why.

    Attributes:
        seconds: without progress.
    """

    local_rank: int
    pid: int
    phase: str
    step: int
    seconds: float
    why: str


def limit_s(beat: Beat, *, busy: bool, least_s: float = LEAST_S) -> float:
    """Seconds that a worker may be at what it is at.

    Args:
        least_s: for a step's own computing, however short steps are.
    """
    start_s, slow_s = max(_START_S, least_s), max(_SLOW_S, _BUSY_STEPS * beat.step_s, least_s)
    starts = beat.steps_done == 0 or beat.around in {Phase.START, Phase.SAVING}
    match beat.phase:
        case Phase.EXCHANGE:  # whom it waits for may be as slow, and is seen to by its own agent first
            return 2 * (start_s if starts else max(_EVALUATION_S, slow_s))
        case Phase.START | Phase.SAVING:
            return start_s
        case Phase.EVALUATION:
            return max(_EVALUATION_S, slow_s)
    if starts:
        return start_s
    if beat.phase in {Phase.DATA, Phase.UPDATE} or busy:
        return slow_s
    return max(least_s, _STEPS * beat.step_s, _LONGEST * beat.longest_s)


def judge(looks: Sequence[Look], *, least_s: float = LEAST_S, patience: float = 1.0) -> list[Hang]:
    """Those at fault; all who wait, where a collective hangs and nobody is.

    Args:
        patience: times the limits.
    """
    stopped = [one for one in looks if one.stopped_s >= STOPPED_S]
    if stopped:
        return [_hang(one, f"its process was stopped {one.stopped_s:.1f} s ago") for one in stopped]
    told = [(one, one.beat) for one in looks if one.beat is not None]
    late = [
        (look, beat) for look, beat in told
        if look.quiet_s > patience * limit_s(beat, busy=look.busy, least_s=least_s)
    ]  # fmt: skip
    at_fault = [look for look, beat in late if beat.phase != Phase.EXCHANGE]
    if at_fault or len(late) < len(looks):
        return [_hang(one, _standstill(one)) for one in at_fault]
    first = min(beat.exchanges for _, beat in late)
    behind = [look for look, beat in late if beat.exchanges == first]
    why = "all workers of this node wait in one collective: for another node's, or for a lost connection"
    if len(behind) < len(late):
        why = "the others wait for it in a later collective"
    return [_hang(one, why) for one in behind]


def _standstill(look: Look) -> str:
    median_s = look.beat.step_s if look.beat is not None else 0.0
    how = "though it uses the processor" if look.busy else "and does not use the processor"
    median = f"; the median step takes {median_s:.2g} s" if median_s else ""
    return f"it makes no progress {how}{median}"


def _hang(look: Look, why: str) -> Hang:
    beat = look.beat
    phase, step = (beat.phase.name.lower(), beat.step) if beat else (Phase.START.name.lower(), 0)
    return Hang(look.local_rank, look.pid, phase, step, round(look.quiet_s, 2), why)


class Watch:
    """Looks at the workers of one node again and again.

    One that hangs at the same step again is given twice as long each time: then it may be slow after all.

    Args:
        least_s: see `limit_s`.
    """

    def __init__(self, board: Board, least_s: float = LEAST_S) -> None:
        self._board, self._least_s = board, least_s
        self._seen: dict[int, _Seen] = {}
        self._patience, self._hung_at = 1.0, -1
        self._looked_at = self._here_since = time.monotonic()

    def look(self, pids: Mapping[int, int]) -> list[Hang]:
        """The workers at fault now.

        Args:
            pids: of the workers that live, by local rank.
        """
        now = time.monotonic()
        if now - self._looked_at > _AWAY_S:  # this agent was stopped or starved itself: silence until now says nothing
            self._here_since = now
            self._seen.clear()
        self._looked_at = now
        self._seen = {pid: self._seen.get(pid) or _Seen(pid) for pid in pids.values()}
        looks = [
            self._seen[pid].look(rank, self._board.read(rank), now, self._here_since) for rank, pid in pids.items()
        ]
        hangs = judge(looks, least_s=self._least_s, patience=self._patience)
        if hangs:
            step = max(one.step for one in hangs)
            self._patience = 2 * self._patience if step <= self._hung_at else 1.0
            self._hung_at = step
        return hangs


def watch_of(hang_after_s: float | Literal["auto", "never"], board: Board) -> Watch | None:
    """What the recipe asks for."""
    if hang_after_s == "never":
        return None
    return Watch(board, LEAST_S if hang_after_s == "auto" else hang_after_s)


class _Seen:
    """What is remembered of one process between two looks."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._beat: Beat | None = None
        self._stopped_since: float | None = None
        self._begun: tuple[float, dict[Path, Share]] | None = None

    def look(self, local_rank: int, beat: Beat | None, now: float, here_since: float) -> Look:
        fresh = beat if beat is not None and beat.pid == self._pid else self._beat  # the slot may still be another's
        try:
            process = psutil.Process(self._pid)
            status = process.status()
            self._stopped_since = (self._stopped_since or now) if status == psutil.STATUS_STOPPED else None
            looked_into = status == psutil.STATUS_TRACING_STOP  # by a debugger
            since = now if fresh is None or looked_into else max(fresh.since, here_since)
            busy = self._is_busy(process, fresh, now)
        except psutil.NoSuchProcess:  # its death is dealt with elsewhere
            return Look(local_rank, self._pid)
        return Look(local_rank, self._pid, fresh, now - since, now - (self._stopped_since or now), busy)

    def _is_busy(self, process: psutil.Process, beat: Beat | None, now: float) -> bool:
        """Asked only of one that has been quiet for a while: its children, compilers for one, take time to find."""
        if beat != self._beat:
            self._beat, self._begun = beat, None
        if beat is None or now - beat.since < _QUIET_S:
            return False
        shares = shares_of([process.pid, *(one.pid for one in process.children(recursive=True))])
        if self._begun is None:
            self._begun = now, shares
            return True
        begun_at, before = self._begun
        return any(
            thread in before and used_of(before[thread], share, now - begun_at) > _BUSY
            for thread, share in shares.items()
        )


def shares_of(pids: Sequence[int]) -> dict[Path, Share]:
    """Seconds on the processor, and seconds of waiting for it, of every thread."""
    shares = {}
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # it has just ended
                on, waiting, _ = path.read_text().split()
                shares[path] = int(on) / 1e9, int(waiting) / 1e9
    return shares


def used_of(before: Share, now: Share, seconds: float) -> float:
    """The part of the time in which a thread was not kept from the processor that it was on it.

    On a crowded machine one that computes gets little of it, yet waits for nothing else.
    """
    on, waiting = now[0] - before[0], now[1] - before[1]
    return on / max(on, seconds - waiting) if on > 0 else 0.0
