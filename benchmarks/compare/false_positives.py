"""False alarms of two equal versions, looked at after every batch: intervals, planned decision, sample ratio.

Settings: a rate of 5 % at equal arms; a rate of 0.5 % with 5 % of the units treated; 4,000 runs of 300 looks each.
Mutant: `MUTANT=naive_z` puts the fixed-sample interval in the sequence's place; `mutants.py` runs it.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from _simulate import arms, first_exclusion, first_mismatch

from emberline.compare import confidence_sequence

TARGET = "anytime <= .05 and sample ratio <= .01 over 4,000 runs of 300 looks"
TRIALS = 16
RUNS, LOOKS, BATCH = 250, 300, 200


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - nothing is written
    return simulate(number, RUNS)


def simulate(number: int, runs: int) -> dict[str, Any]:
    if os.environ.get("MUTANT") == "naive_z":
        confidence_sequence.half_width = lambda variance, *_, **__: 1.96 * variance**0.5
    rng = np.random.default_rng([number, 1])
    found = {"runs": runs, "looks": LOOKS, "anytime": 0, "anytime_rare_and_small": 0, "planned": 0, "srm": 0}
    for _ in range(runs):
        counts, hits = arms(rng, LOOKS, BATCH, 0.5, (0.05, 0.05))
        found["anytime"] += first_exclusion(counts, hits, planned_units=LOOKS * BATCH) is not None
        found["planned"] += first_exclusion(counts, hits, planned_units=LOOKS * BATCH, planned=True) is not None
        found["srm"] += first_mismatch(counts, 0.5) is not None
        counts, hits = arms(rng, LOOKS, BATCH, 0.05, (0.005, 0.005))
        found["anytime_rare_and_small"] += first_exclusion(counts, hits, planned_units=5000) is not None
    return found


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    runs = sum(trial["runs"] for trial in trials)
    names = ("anytime", "anytime_rare_and_small", "planned", "srm")
    rates = {name: round(sum(trial[name] for trial in trials) / runs, 4) for name in names}
    reached = max(rates["anytime"], rates["anytime_rare_and_small"]) <= 0.05 and rates["srm"] <= 0.01
    return {"runs": runs, "looks": LOOKS, **rates, "reached": reached}
