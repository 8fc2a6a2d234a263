"""A candidate's measurement and gates, from what the measuring process found. Pure, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from emberline.artifact import Measurement
from emberline.compress import gates
from emberline.compress.chain import Done
from emberline.compress.choice import Choice, correct_rows, latencies_of, speedups_of
from emberline.compress.gates import Outcome
from emberline.errors import StageFailed
from emberline.measure.session import Measured
from emberline.recipe import Compress

_REPAIRS = ("batch_norm", "finetune")


@dataclass(frozen=True)
class Verdict:
    """What is said of one artifact.

    Attributes:
        failure: why it must not be published, or None.
        blamed: the stage that lost what a failed accuracy gate asks for; None for other gates.
    """

    measurement: Measurement
    outcomes: tuple[Outcome, ...]
    failure: StageFailed | None
    blamed: str | None = None


def judge(
    name: str,
    settings: Compress,
    *,
    baseline: Measured,
    choice: Choice,
    stages: Sequence[Done],
    machine: str,
    also_warn: Sequence[str] = (),
) -> Verdict:
    """Measurement and gates of one artifact; the baseline is judged against itself, so only its size can fail.

    Args:
        baseline: the package that leads the baseline's chain.
    """
    candidate = choice.leads
    correct, reference = correct_rows(candidate), correct_rows(baseline)
    paired = gates.paired_drop(reference, correct)
    is_baseline = name == settings.baseline
    speedups = speedups_of(candidate, None if is_baseline else baseline)
    slower = gates.slower(speedups)
    outcomes = choice.outcomes
    unsure = [f"gate {one.gate} is inconclusive: {one.text}" for one in outcomes if one.verdict == "inconclusive"]
    measurement = Measurement(
        accuracy=float(correct.mean()),
        rows=len(correct),
        latencies=latencies_of(candidate),
        size_bytes=candidate.size_bytes,
        speedup=speedups[settings.batch_sizes[0]],
        accuracy_drop=0.0 if is_baseline else paired.drop,
        machine=machine,
        warnings=(*also_warn, *candidate.skipped, *choice.refused, *slower, *unsure),
        memory_mb=candidate.memory_mb,
        packages=choice.measured,
        left_out=dict(stages[-1].note.get("left_out", {})),
    )
    failure = _failure(name, outcomes, stages, trained=float(reference.mean()), accuracy=measurement.accuracy)
    return Verdict(measurement, outcomes, *failure)


def _failure(
    name: str, outcomes: Sequence[Outcome], stages: Sequence[Done], *, trained: float, accuracy: float
) -> tuple[StageFailed | None, str | None]:
    """The first failed gate, with the stage that lost it; `trained` and `accuracy` are those before and after all."""
    failed = next((one for one in outcomes if one.verdict == "failed"), None)
    if failed is None:
        return None, None
    blamed = None
    stage, hint = "export", "other stages or a looser gate; the stages already done are reused"
    if failed.gate == "max_accuracy_drop":
        stage, lost = gates.lost_by([("trained", trained), *_settled(stages), ("export", accuracy)])
        blamed = stage
        hint = f"{stage} lost {100 * lost:.1f} points, more than any other stage; ease it or fine-tune longer after it"
    return StageFailed(f"{name}, stage {stage}", f"gate {failed.gate} failed: {failed.text}", hint=hint), blamed


def _settled(stages: Sequence[Done]) -> list[tuple[str, float]]:
    """Accuracy after each stage but the export; what repairs a stage counts as a part of it."""
    settled: list[tuple[str, float]] = []
    for one in stages[:-1]:
        name = settled.pop()[0] if settled and one.name in _REPAIRS else one.name
        settled.append((name, float(one.note["accuracy"])))
    return settled
