"""Which package leads an artifact's chain: the fastest of those that pass all gates. Pure, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emberline.artifact import Latency, Package, PackageMeasurement
from emberline.compress import gates
from emberline.compress.gates import Outcome
from emberline.errors import StageFailed
from emberline.measure import speedup
from emberline.measure.session import Measured
from emberline.recipe import Gates

# behind the chosen one: what is fast here first, what runs anywhere last
_CHAIN = ("aoti-cuda", "aoti native", "aoti", "onnx", "openvino", "exported")
_ACCURACY = "max_accuracy_drop"
_WRONG = 3  # the last rank: of answers that are not right often enough to be given at all


@dataclass(frozen=True)
class Choice:
    """The chain of one artifact, as measured.

    Attributes:
        leads: the package that serves, where it fits.
        chain: all that may serve, `leads` first.
        outcomes: of all gates for `leads`.
        measured: every package that was built and timed.
        refused: a sentence for each package that lost too much accuracy to stay in the chain, or is faster than `leads`
            and stands behind it for another gate.
    """

    leads: Measured
    chain: tuple[Package, ...]
    outcomes: tuple[Outcome, ...]
    measured: tuple[PackageMeasurement, ...]
    refused: tuple[str, ...]


def choose(
    packages: Sequence[Package], measured: Mapping[str, Measured], wanted: Gates, baseline: Measured | None
) -> Choice:
    """Picks by the geometric mean of the latencies over all batch sizes, of the packages that pass all gates.

    Where none does, of those whose gates are inconclusive at worst; else the fastest leads all the same, with a failed
    outcome for the caller to act on, one that keeps its accuracy before one that does not.

    Args:
        measured: by file name; the interpreted program at the chain's end need not be among them.
        baseline: what the gates hold a package against; None for the baseline itself, whose size and memory are judged.
    """
    judged = {file: outcomes_of(one, wanted, baseline) for file, one in measured.items()}
    ranks = {file: _rank(outcomes) for file, outcomes in judged.items()}
    leads = min(measured, key=lambda file: (ranks[file], mean_latency_ms(measured[file])))
    wrong = {file for file, rank in ranks.items() if rank == _WRONG and file != leads}
    refused = []
    for file, outcomes in judged.items():
        passed_over = ranks[file] > ranks[leads] and mean_latency_ms(measured[file]) < mean_latency_ms(measured[leads])
        if file in wrong or passed_over:
            why = next(one for one in outcomes if _rank((one,)) == ranks[file])
            refused.append(f"{file} {'leaves the chain' if file in wrong else 'does not lead'}: {why.text}")
    kept = [package for package in packages if package.file not in wrong]
    return Choice(
        leads=measured[leads],
        chain=tuple(sorted(kept, key=lambda package: (package.file != leads, _CHAIN.index(_kind(package))))),
        outcomes=judged[leads],
        measured=tuple(_describe(one, judged[file], baseline, chosen=file == leads) for file, one in measured.items()),
        refused=tuple(refused),
    )


def outcomes_of(one: Measured, wanted: Gates, baseline: Measured | None) -> tuple[Outcome, ...]:
    """Of every gate that the recipe asks for."""
    found: list[Outcome] = []
    speedups = speedups_of(one, baseline)
    if baseline is not None:
        if wanted.max_accuracy_drop is not None:
            paired = gates.paired_drop(correct_rows(baseline), correct_rows(one))
            found.append(gates.accuracy_gate(paired, wanted.max_accuracy_drop))
        if wanted.min_speedup is not None:
            first = one.timings[0].batch
            found.append(gates.speed_gate(speedups[first], wanted.min_speedup, first))
    if wanted.max_size_mb is not None:
        found.append(gates.size_gate(one.size_bytes, wanted.max_size_mb))
    if wanted.max_memory_mb is not None:
        found.append(gates.memory_gate(one.memory_mb, wanted.max_memory_mb))
    slower = gates.slower(speedups)
    if slower and wanted.on_slower == "refuse":
        found.append(Outcome("on_slower", "failed", "; ".join(slower)))
    return tuple(found)


def speedups_of(one: Measured, baseline: Measured | None) -> dict[int, float]:
    """How many times as fast as the baseline, by batch size; the baseline itself, which is None, is once as fast."""
    return {
        timing.batch: 1.0 if baseline is None else speedup(baseline.timing(timing.batch), timing)
        for timing in one.timings
    }


def _rank(outcomes: Sequence[Outcome]) -> int:
    """The less, the sooner such a package leads."""
    if any(one.verdict == "failed" and one.gate == _ACCURACY for one in outcomes):
        return _WRONG
    verdicts = {one.verdict for one in outcomes}
    return 2 if "failed" in verdicts else 1 if "inconclusive" in verdicts else 0


def mean_latency_ms(one: Measured) -> float:
    """Geometric mean over the batch sizes, so that each weighs alike however long its batches take."""
    return float(np.exp(np.mean([np.log(timing.wall_median_ms) for timing in one.timings])))


def latencies_of(one: Measured) -> tuple[Latency, ...]:
    return tuple(
        Latency(
            batch=timing.batch,
            wall_ms=timing.wall_median_ms,
            cpu_ms=timing.cpu_median_ms,
            spread_ms=timing.spread_ms,
        )
        for timing in one.timings
    )


def correct_rows(one: Measured) -> "np.typing.NDArray[np.float64]":
    """1 or 0 for each validation row; between them where an answer can be right in part.

    Raises:
        StageFailed: it was timed without rows.
    """
    if one.correct is None:
        raise StageFailed("measure", f"{one.name} was not scored")
    return one.correct


def _kind(package: Package) -> str:
    return "aoti native" if package.backend == "aoti" and package.march == "native" else package.backend


def _describe(
    one: Measured, outcomes: Sequence[Outcome], baseline: Measured | None, *, chosen: bool
) -> PackageMeasurement:
    correct = correct_rows(one)
    return PackageMeasurement(
        file=one.package["file"],
        backend=one.package["backend"],
        precision=one.package["precision"],
        accuracy=float(correct.mean()),
        accuracy_drop=0.0 if baseline is None else gates.paired_drop(correct_rows(baseline), correct).drop,
        latencies=latencies_of(one),
        size_bytes=one.size_bytes,
        memory_mb=one.memory_mb,
        verdict=next((outcome.verdict for outcome in outcomes if outcome.gate == _ACCURACY), "-"),
        chosen=chosen,
    )
