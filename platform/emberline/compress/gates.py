"""Gates: what a candidate must show before it becomes an artifact, as pure functions of what was measured.

An accuracy gate is decided by a confidence bound on paired rows, since baseline and candidate answered the same ones.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["passed", "failed", "inconclusive"]

CONFIDENCE = 0.95
_AS_FAST = 0.98  # of the baseline's speed: two measurements of one package differ by as much
_Z = 1.6449  # of a one-sided bound at that confidence


@dataclass(frozen=True)
class Outcome:
    """One gate's result.

    Attributes:
        text: one sentence with the numbers.
    """

    gate: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class PairedDrop:
    """How much accuracy the candidate lost on the rows that both answered.

    Attributes:
        drop: measured, as a fraction; negative for a gain.
        half_width: from the bound's centre to the bound.
        centre: of the interval, drawn slightly towards zero.
        deviation: of one row's difference.
    """

    rows: int
    drop: float
    centre: float
    half_width: float
    deviation: float

    @property
    def upper(self) -> float:
        """With 95 % confidence the true drop is below this."""
        return self.centre + self.half_width

    @property
    def lower(self) -> float:
        """With 95 % confidence the true drop is above this."""
        return self.centre - self.half_width


def paired_drop(baseline: NDArray[np.float64], candidate: NDArray[np.float64]) -> PairedDrop:
    """The drop in accuracy with its one-sided bound, from 1 or 0, or what lies between, for each row.

    Adds one row to each kind of disagreement, so that two models that agree on every row still have a bound. Of ones
    and zeros it is the source's interval; of other values the mean and deviation of differences, by the same steps.

    Source: Bonett and Price, Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data, Journal of Educational and Behavioral Statistics 37 (2012), equation 4.
    """
    rows = len(baseline)
    lost = np.asarray(baseline, np.float64) - candidate
    centre = float(lost.sum()) / (rows + 2)
    deviation = math.sqrt((float((lost**2).sum()) + 2) / (rows + 2) - centre**2)
    return PairedDrop(
        rows=rows,
        drop=float(lost.sum()) / rows,
        centre=centre,
        half_width=_Z * deviation / math.sqrt(rows + 2),
        deviation=deviation,
    )


def accuracy_gate(paired: PairedDrop, most: float) -> Outcome:
    """Passed when the bound is within the gate; failed when the drop itself is not; else inconclusive.

    Rows so few that the half-width is above the gate decide nothing, but for a drop that is certain all the same.
    """
    text = (
        f"drop {100 * paired.drop:.2f} points, below {100 * paired.upper:.2f} with {CONFIDENCE:.0%} confidence on "
        f"{paired.rows} rows; {100 * most:g} allowed"
    )
    if paired.lower > most or (paired.drop > most and paired.half_width <= most):
        return Outcome("max_accuracy_drop", "failed", text)
    if paired.upper <= most and paired.half_width <= most:
        return Outcome("max_accuracy_drop", "passed", text)
    return Outcome("max_accuracy_drop", "inconclusive", f"{text}; needs {_rows_needed(paired, most)} rows")


def speed_gate(speedup: float, least: float, batch: int) -> Outcome:
    verdict: Verdict = "passed" if speedup >= least else "failed"
    return Outcome("min_speedup", verdict, f"{speedup:.2f}x at batch {batch}; {least:g}x required")


def size_gate(size_bytes: int, most_mb: float) -> Outcome:
    verdict: Verdict = "passed" if size_bytes <= most_mb * 1e6 else "failed"
    return Outcome("max_size_mb", verdict, f"{size_bytes / 1e6:.3f} MB; {most_mb:g} MB allowed")


def memory_gate(memory_mb: float | None, most_mb: float) -> Outcome:
    """Inconclusive where the peak could not be taken."""
    if memory_mb is None:
        return Outcome("max_memory_mb", "inconclusive", f"the peak of memory is unknown; {most_mb:g} MB allowed")
    verdict: Verdict = "passed" if memory_mb <= most_mb else "failed"
    return Outcome(
        "max_memory_mb", verdict, f"{memory_mb:.0f} MB at the peak, PyTorch included; {most_mb:g} MB allowed"
    )


def slower(speedups: dict[int, float]) -> list[str]:
    """A sentence for each batch size at which the candidate was measured slower than the baseline, beyond noise."""
    return [
        f"slower than the baseline at batch {batch}: {factor:.2f}x of its speed"
        for batch, factor in speedups.items()
        if factor < _AS_FAST
    ]


def lost_by(accuracies: list[tuple[str, float]]) -> tuple[str, float]:
    """The stage with the largest drop between its accuracy and the one before it, and that drop."""
    drops = [(stage, before - after) for (_, before), (stage, after) in pairwise(accuracies)]
    return max(drops, key=lambda entry: entry[1])


def _rows_needed(paired: PairedDrop, most: float) -> int:
    """Rows at which the bound would decide, were the drop what was measured here."""
    room = min(abs(most - paired.drop) or most, most) or 1e-3
    return max(math.ceil((_Z * paired.deviation / room) ** 2), paired.rows + 1)
