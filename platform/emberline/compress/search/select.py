"""Which candidate deserves the next full evaluation, and which results nothing beats. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from emberline.compress.search.space import Candidate, SearchedPrecision

_SAME = 1.02  # costs closer than that are measured as equal
# before anything of a precision was evaluated: its time beside fp32's, and its bytes a weight
_TIME: dict[SearchedPrecision, float] = {"fp32": 1.0, "bf16": 0.6, "fp16": 0.6, "int8": 0.4, "int8_dynamic": 0.5}
_BYTES: dict[SearchedPrecision, float] = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int8_dynamic": 1.0}


@dataclass(frozen=True)
class Look:
    """A cheap look at a net: validation accuracy after a short training, multiply-adds of a row, weights."""

    accuracy: float
    operations: float
    parameters: int


@dataclass(frozen=True)
class Costs:
    """Accuracy as a fraction, and what it costs, measured or predicted; memory is known once measured."""

    accuracy: float
    latency_ms: float
    size_mb: float
    memory_mb: float | None = None


@dataclass(frozen=True)
class Evaluated:
    """A full evaluation.

    Attributes:
        costs: as measured; None where a stage failed.
        failure: why it was not accepted; None for an accepted point.
    """

    candidate: Candidate
    costs: Costs | None
    failure: str | None


def predict(candidate: Candidate, look: Look, looks: Mapping[str, Look], evaluated: Sequence[Evaluated]) -> Costs:
    """What a full evaluation would find, from a cheap look, corrected by what those before found.

    Accuracy is that of the same net in another precision, where that was evaluated; else the look's, and what full
    training added in the median. Latency goes by the median of milliseconds a multiply-add. Both over evaluations of
    the same precision; where there are none, over all, with what a precision usually saves.

    Args:
        looks: of all nets, by key.
    """
    seen = [(one, one.costs, looks[one.candidate.net.key]) for one in evaluated if one.costs is not None]
    same = [entry for entry in seen if entry[0].candidate.precision == candidate.precision]
    gains = [costs.accuracy - its.accuracy for _, costs, its in same or seen]
    known = [costs.accuracy for one, costs, _ in seen if one.candidate.net.key == candidate.net.key]
    own = _TIME[candidate.precision]
    rates = [costs.latency_ms / its.operations for _, costs, its in same] or [
        costs.latency_ms / its.operations * own / _TIME[one.candidate.precision] for one, costs, its in seen
    ]
    return Costs(
        accuracy=max(known) if known else min(1.0, look.accuracy + (median(gains) if gains else 0.0)),
        latency_ms=look.operations * (median(rates) if rates else own),
        size_mb=look.parameters * _BYTES[candidate.precision] / 1e6,
    )


def choose_next(
    candidates: Sequence[Candidate],
    looks: Mapping[str, Look],
    evaluated: Sequence[Evaluated],
    *,
    least_accuracy: float | None,
) -> Candidate | None:
    """The candidate to be evaluated in full, or None where no other promises anything.

    Of those that nothing beats, predicted or measured, the most accurate comes first; then the one least like all that
    were evaluated, so that few evaluations span the front. Those predicted below `least_accuracy` wait until the last.
    """
    done = {one.candidate.key for one in evaluated}
    left = {one.key: one for one in candidates if one.key not in done}
    predicted = {
        key: predict(one, looks[one.net.key], looks, evaluated) for key, one in left.items() if one.net.key in looks
    }
    # a prediction knows no memory and is no package: only the three that it knows are compared
    measured = [replace(one.costs, memory_mb=None) for one in evaluated if one.costs is not None and not one.failure]
    promising = {key for key, costs in predicted.items() if not beaten(costs, [*measured, *predicted.values()])}
    hopeful = {key for key in promising if least_accuracy is None or predicted[key].accuracy >= least_accuracy}
    pool = sorted(hopeful or promising)
    if not pool:
        return None
    known = [one.costs for one in evaluated if one.costs is not None]
    if not known:
        return left[max(pool, key=lambda key: (predicted[key].accuracy, -predicted[key].latency_ms))]
    return left[max(pool, key=lambda key: min(_distance(predicted[key], other) for other in known))]


def beaten(costs: Costs, others: Sequence[Costs]) -> bool:
    """Whether another is at least as good in everything and better in something; costs within 2 % count as equal."""
    mine = _grid(costs)
    theirs = [_grid(other) for other in others]
    return any(other != mine and all(one <= two for one, two in zip(other, mine, strict=True)) for other in theirs)


def front_of(evaluated: Sequence[Evaluated]) -> list[Evaluated]:
    """Of the accepted points those that no other beats in accuracy, latency, size and memory; the fastest first."""
    accepted = [one for one in evaluated if one.failure is None and one.costs is not None]
    costs = [one.costs for one in accepted if one.costs is not None]
    if any(one.memory_mb is None for one in costs):  # a peak that could not be taken compares with none
        costs = [replace(one, memory_mb=None) for one in costs]
    front = [one for one, its in zip(accepted, costs, strict=True) if not beaten(its, costs)]
    return sorted(front, key=lambda one: one.costs.latency_ms if one.costs else math.inf)


def _grid(costs: Costs) -> tuple[float, ...]:
    """All to be made small; what costs is put on a logarithmic grid, so that noise decides nothing."""
    memory = () if costs.memory_mb is None else (_step(costs.memory_mb),)
    return (-costs.accuracy, _step(costs.latency_ms), _step(costs.size_mb), *memory)


def _step(value: float) -> float:
    return round(math.log(max(value, 1e-12)) / math.log(_SAME))


def _distance(one: Costs, other: Costs) -> float:
    """How unlike two points are: a tenth of accuracy weighs as much as a factor of e in time or size."""
    return math.hypot(
        10 * (one.accuracy - other.accuracy),
        math.log(one.latency_ms / other.latency_ms),
        math.log(one.size_mb / other.size_mb),
    )
