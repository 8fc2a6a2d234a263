"""Which package leads an artifact's chain: the fastest of those that keep the accuracy gate. Pure, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emberline.artifact import Latency, Package, PackageMeasurement
from emberline.compress import gates
from emberline.compress.gates import Outcome
from emberline.errors import StageFailed
from emberline.measure.session import Measured
from emberline.recipe import Gates

# behind the chosen one: what is fast here first, what runs anywhere last
_CHAIN = ("aoti-cuda", "aoti native", "aoti", "onnx", "openvino", "exported")


@dataclass(frozen=True)
class Choice:
    """The chain of one artifact, as measured.

    Attributes:
        leads: the package that serves, where it fits.
        chain: all that may serve, `leads` first.
        outcome: of the accuracy gate for `leads`; None without such a gate.
        measured: every package that was built and timed.
        refused: a sentence for each package that lost too much accuracy to stay in the chain.
    """

    leads: Measured
    chain: tuple[Package, ...]
    outcome: Outcome | None
    measured: tuple[PackageMeasurement, ...]
    refused: tuple[str, ...]


def choose(
    packages: Sequence[Package],
    measured: Mapping[str, Measured],
    wanted: Gates,
    reference: "np.typing.NDArray[np.float64] | None",
) -> Choice:
    """Picks by the geometric mean of the latencies over all batch sizes; a failed accuracy gate disqualifies.

    Where every package fails the gate, the fastest leads all the same, with a failed outcome for the caller to act on.

    Args:
        measured: by file name; the interpreted program at the chain's end need not be among them.
        reference: how good the baseline's answer to each row is, 0 to 1; None for the baseline itself.
    """
    judged = {file: _judge(one, wanted, reference) for file, one in measured.items()}
    failed = {file for file, (_, outcome) in judged.items() if outcome is not None and outcome.verdict == "failed"}
    eligible = [file for file in measured if file not in failed] or list(measured)
    leads = min(eligible, key=lambda file: mean_latency_ms(measured[file]))
    refused = tuple(
        f"{file} leaves the chain: {outcome.text}"
        for file, (_, outcome) in judged.items()
        if file in failed and file != leads and outcome is not None
    )
    kept = [package for package in packages if package.file not in failed or package.file == leads]
    return Choice(
        leads=measured[leads],
        chain=tuple(sorted(kept, key=lambda package: (package.file != leads, _CHAIN.index(_kind(package))))),
        outcome=judged[leads][1],
        measured=tuple(_describe(one, *judged[file], chosen=file == leads) for file, one in measured.items()),
        refused=refused,
    )


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


def _judge(
    one: Measured, wanted: Gates, reference: "np.typing.NDArray[np.float64] | None"
) -> tuple[float, Outcome | None]:
    if reference is None:
        return 0.0, None
    paired = gates.paired_drop(reference, correct_rows(one))
    most = wanted.max_accuracy_drop
    return paired.drop, None if most is None else gates.accuracy_gate(paired, most)


def _describe(one: Measured, drop: float, outcome: Outcome | None, *, chosen: bool) -> PackageMeasurement:
    return PackageMeasurement(
        file=one.package["file"],
        backend=one.package["backend"],
        precision=one.package["precision"],
        accuracy=float(correct_rows(one).mean()),
        accuracy_drop=drop,
        latencies=latencies_of(one),
        size_bytes=one.size_bytes,
        memory_mb=one.memory_mb,
        verdict=outcome.verdict if outcome else "-",
        chosen=chosen,
    )
