"""Paired shadow: pairs to certify "below 1 % disagreement" at a true 0.3 %, and to find half a point less accuracy.

The loss: 95 % of the control's answers are right and 94.5 % of the treatment's, which disagree on 1 % of the requests.
The unpaired test sees the same two versions on requests of their own, half each; both are looked at every 100 requests.
"""

from pathlib import Path
from typing import Any

import numpy as np
from _simulate import sample

from emberline.compare.difference import difference_of
from emberline.compare.disagreement import share_of
from emberline.compare.paired import accuracy_difference
from emberline.experiment import Metric

TARGET = "<= 2,000 pairs to certify; >= 5x fewer requests than the unpaired test"
TRIALS = 10
RUNS, EVERY, LONGEST = 20, 100, 400_000
RATE = Metric(metric="correct")
PAIRED_PLAN, UNPAIRED_PLAN = 10_000, 100_000


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - nothing is written
    rng = np.random.default_rng([number, 3])
    return {
        "certify": [_certify(rng) for _ in range(RUNS)],
        "paired": [_paired(rng) for _ in range(RUNS)],
        "unpaired": [_unpaired(rng) for _ in range(RUNS)],
    }


def _certify(rng: np.random.Generator) -> int:
    hits = 0
    for pairs in range(EVERY, LONGEST, EVERY):
        hits += int(rng.binomial(EVERY, 0.003))
        if share_of(hits, pairs, alpha=0.05).upper < 0.01:
            return pairs
    return LONGEST


def _paired(rng: np.random.Generator) -> int:
    better = worse = 0
    for pairs in range(EVERY, LONGEST, EVERY):
        more, fewer, _ = rng.multinomial(EVERY, (0.0025, 0.0075, 0.99))
        better, worse = better + int(more), worse + int(fewer)
        if accuracy_difference(pairs, better, worse, alpha=0.05, planned_units=PAIRED_PLAN).upper < 0:
            return pairs
    return LONGEST


def _unpaired(rng: np.random.Generator) -> int:
    half, hits = EVERY // 2, [0, 0]
    for looks in range(1, LONGEST // EVERY):
        hits = [hit + int(rng.binomial(half, rate)) for hit, rate in zip(hits, (0.95, 0.945), strict=True)]
        found = difference_of(RATE, sample(hits[0], looks * half), sample(hits[1], looks * half))
        if found.interval(alpha=0.05, planned_units=UNPAIRED_PLAN).upper < 0:
            return looks * EVERY
    return LONGEST


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("certify", "paired", "unpaired")
    medians = {name: float(np.median(np.concatenate([trial[name] for trial in trials]))) for name in names}
    times = medians["unpaired"] / medians["paired"]
    reached = medians["certify"] <= 2000 and times >= 5
    return {"runs": len(trials) * RUNS, **medians, "times_fewer": round(times, 2), "reached": reached}
