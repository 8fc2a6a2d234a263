"""What a run's log adds up to: steps, restarts, time lost. A pure function of events."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Event = dict[str, Any]

# others write into the same log, compression for one
_OWN = {
    "world",
    "step",
    "epoch",
    "restart",
    "checkpoint",
    "worker_exit",
    "preempted",
    "not_finite",
    "done",
    "snapshots",
    "overflow",
    "early_stop",
    "hang",
    "straggler",
    "straggler_over",
}
_LAST = {"preempted", "done"}


@dataclass(frozen=True)
class Summary:
    """One run.

    Attributes:
        seconds: from the first world to the last event of each start, added up; pauses between starts do not count.
        seconds_lost: between the last step before a death and the first step after it, beyond one step's time.
        lost_s: the same, restart by restart.
        steps_lost: steps that had been logged and were computed again.
        goodput: the part of the time that was not lost.
        preemptions: notices at which the state was saved.
        seconds_to_save: the longest of them, from the notice to the saved state; 0 without any.
        hangs: workers that were replaced since they made no progress.
        slow_ranks: the highest ratio to the others' median that was told of each rank, such as `{"1": 2.3}`.
    """

    steps: int
    restarts: int
    seconds: float
    seconds_lost: float
    lost_s: tuple[float, ...]
    steps_lost: int
    goodput: float
    checkpoints: int
    preemptions: int
    seconds_to_save: float
    hangs: int
    slow_ranks: dict[str, float]

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def summarise(events: Sequence[Event]) -> Summary:
    events = since_anew(events)
    restarts = [event for event in events if event["event"] == "restart"]
    seconds = sum(_durations(events))
    lost = sum(float(event["seconds_lost"]) for event in restarts)
    saves = [float(event["seconds_to_save"]) for event in events if event["event"] == "preempted"]
    slow: dict[int, list[float]] = {}
    for event in events:
        if event["event"] == "straggler":
            slow.setdefault(event["rank"], []).append(event["ratio"])
    return Summary(
        steps=max((event["step"] for event in events if event["event"] == "step"), default=0),
        restarts=len(restarts),
        seconds=round(seconds, 2),
        seconds_lost=round(lost, 2),
        lost_s=tuple(round(float(event["seconds_lost"]), 2) for event in restarts),
        steps_lost=sum(int(event["steps_lost"]) for event in restarts),
        goodput=round(1 - lost / seconds, 4) if seconds > lost else 0.0,
        checkpoints=sum(event["event"] == "checkpoint" for event in events),
        preemptions=len(saves),
        seconds_to_save=max(saves, default=0.0),
        hangs=sum(event["event"] == "hang" for event in events),
        slow_ranks={str(rank): max(ratios) for rank, ratios in sorted(slow.items())},
    )


def since_anew(events: Sequence[Event]) -> Sequence[Event]:
    """The events of the training that the folder holds now: those after the last start from nothing."""
    first = max((index for index, event in enumerate(events) if event["event"] == "anew"), default=-1) + 1
    return events[first:]


def anything_kept(events: Sequence[Event]) -> bool:
    """Whether steps were done whose state is worth going on from; a loss that is not finite would only come again."""
    told = [event["event"] for event in since_anew(events) if event["event"] in {"step", "not_finite"}]
    return bool(told) and told[-1] == "step"


def data_identity(events: Sequence[Event]) -> dict[str, Any] | None:
    """What the training data are known by, with how often they changed while the run went on; None if untold."""
    told = [event for event in events if event["event"] == "data"]
    if not told:
        return None
    facts = {key: value for key, value in told[-1].items() if key not in {"event", "time"}}
    return {**facts, "changed": len(told) - 1} if len(told) > 1 else facts


def last_step(events: Sequence[Event]) -> int:
    """The step of the last line about one; 0 before the first."""
    return next((int(event["step"]) for event in reversed(since_anew(events)) if event["event"] == "step"), 0)


def restart_facts(before: Sequence[Event], world: Event, now: float) -> Event | None:
    """What a restart cost, at the first step after it; None for a first start or one by a new launcher.

    Args:
        before: events up to and without `world`.
        world: of the generation that has just done its first step.
        now: when it had done it, in seconds since the epoch.
    """
    worlds = [event for event in before if event["event"] == "world"]
    if not worlds or worlds[-1].get("launch") != world.get("launch"):
        return None
    steps = [event for event in before if event["event"] == "step"]
    last_time = steps[-1]["time"] if steps else worlds[-1]["time"]
    step_time = steps[-1]["time"] - steps[-2]["time"] if len(steps) > 1 else 0.0
    return {
        "generation": world["generation"],
        "step": world["step"],
        "source": world["source"],
        "world_size": world["world_size"],
        "seconds_lost": round(max(0.0, now - last_time - max(0.0, step_time)), 3),
        "steps_lost": max(0, last_step(before) - world["step"]),
    }


def _durations(events: Sequence[Event]) -> list[float]:
    """Seconds of each launch, by the events of training alone."""
    spans: list[tuple[float, float]] = []
    current: str | None = None
    for event in events:
        if event["event"] not in _OWN:
            continue
        if event["event"] == "world" and str(event.get("launch")) != current:
            current = str(event.get("launch"))
            spans.append((event["time"], event["time"]))
        if current is not None:
            spans[-1] = (spans[-1][0], event["time"])
        if event["event"] in _LAST:  # what comes later belongs to no launch until the next world
            current = None
    return [last - first for first, last in spans]
