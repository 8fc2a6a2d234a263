"""A candidate's measurement and gates, from what the measuring process found. Pure, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emberline.artifact import Latency, Measurement
from emberline.compress import gates
from emberline.compress.chain import Done
from emberline.compress.gates import Outcome
from emberline.errors import StageFailed
from emberline.measure import speedup
from emberline.measure.session import Measured
from emberline.recipe import Compress, Variant

_REPAIRS = ("batch_norm", "finetune")


@dataclass(frozen=True)
class Verdict:
    """What is said of one artifact.

    Attributes:
        failure: why it must not be published, or None.
    """

    measurement: Measurement
    outcomes: tuple[Outcome, ...]
    failure: StageFailed | None


def judge(
    name: str,
    settings: Compress,
    *,
    baseline: Measured,
    candidate: Measured,
    stages: Sequence[Done],
    machine: str,
    also_warn: Sequence[str] = (),
) -> Verdict:
    """Measurement and gates of one artifact; the baseline is judged against itself, so only its size can fail."""
    correct, reference = _scored(candidate), _scored(baseline)
    paired = gates.paired_drop(reference, correct)
    variant = settings.artifacts[name]
    is_baseline = name == settings.baseline
    speedups = {
        batch: 1.0 if is_baseline else speedup(baseline.timing(batch), candidate.timing(batch))
        for batch in settings.batch_sizes
    }
    slower = gates.slower(speedups)
    outcomes = _outcomes(variant, settings, paired, speedups, candidate.size_bytes, is_baseline=is_baseline)
    if slower and variant.gates.on_slower == "refuse":
        outcomes.append(Outcome("on_slower", "failed", "; ".join(slower)))
    unsure = [f"gate {one.gate} is inconclusive: {one.text}" for one in outcomes if one.verdict == "inconclusive"]
    measurement = Measurement(
        accuracy=float(correct.mean()),
        rows=len(correct),
        latencies=tuple(
            Latency(
                batch=timing.batch,
                wall_ms=timing.wall_median_ms,
                cpu_ms=timing.cpu_median_ms,
                spread_ms=timing.spread_ms,
            )
            for timing in candidate.timings
        ),
        size_bytes=candidate.size_bytes,
        speedup=speedups[settings.batch_sizes[0]],
        accuracy_drop=0.0 if is_baseline else paired.drop,
        machine=machine,
        warnings=(*also_warn, *candidate.skipped, *slower, *unsure),
    )
    failure = _failure(name, outcomes, stages, trained=float(reference.mean()), accuracy=measurement.accuracy)
    return Verdict(measurement, tuple(outcomes), failure)


def _outcomes(
    variant: Variant,
    settings: Compress,
    paired: gates.PairedDrop,
    speedups: dict[int, float],
    size_bytes: int,
    *,
    is_baseline: bool,
) -> list[Outcome]:
    wanted, outcomes = variant.gates, []
    if wanted.max_accuracy_drop is not None and not is_baseline:
        outcomes.append(gates.accuracy_gate(paired, wanted.max_accuracy_drop))
    if wanted.min_speedup is not None and not is_baseline:
        first = settings.batch_sizes[0]
        outcomes.append(gates.speed_gate(speedups[first], wanted.min_speedup, first))
    if wanted.max_size_mb is not None:
        outcomes.append(gates.size_gate(size_bytes, wanted.max_size_mb))
    return outcomes


def _failure(
    name: str, outcomes: Sequence[Outcome], stages: Sequence[Done], *, trained: float, accuracy: float
) -> StageFailed | None:
    """The first failed gate, with the stage that lost it; `trained` and `accuracy` are those before and after all."""
    failed = next((one for one in outcomes if one.verdict == "failed"), None)
    if failed is None:
        return None
    stage, hint = "export", "other stages or a looser gate; the stages already done are reused"
    if failed.gate == "max_accuracy_drop":
        stage, lost = gates.lost_by([("trained", trained), *_settled(stages), ("export", accuracy)])
        hint = f"{stage} lost {100 * lost:.1f} points, more than any other stage; ease it or fine-tune longer after it"
    return StageFailed(f"{name}, stage {stage}", f"gate {failed.gate} failed: {failed.text}", hint=hint)


def _settled(stages: Sequence[Done]) -> list[tuple[str, float]]:
    """Accuracy after each stage but the export; what repairs a stage counts as a part of it."""
    settled: list[tuple[str, float]] = []
    for one in stages[:-1]:
        name = settled.pop()[0] if settled and one.name in _REPAIRS else one.name
        settled.append((name, float(one.note["accuracy"])))
    return settled


def _scored(measured: Measured) -> NDArray[np.int64]:
    if measured.correct is None:
        raise StageFailed("measure", f"{measured.name} was not scored")
    return measured.correct
