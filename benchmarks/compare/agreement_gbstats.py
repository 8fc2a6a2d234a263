"""Sequential intervals and p-values against those of GrowthBook's gbstats, in an environment of its own.

gbstats wants older numpy and pandas than emberline, so it gets `.venv-gbstats` (kept from git), made once by:

    python3.11 -m venv .venv-gbstats && .venv-gbstats/bin/pip install gbstats==0.8.0
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from emberline.compare.confidence_sequence import difference_of_means
from emberline.compare.difference import Difference
from emberline.compare.moments import Moments

TARGET = "every bound and p-value within 1e-9"
TRIALS = 4
CASES = 500
PYTHON = Path(os.environ.get("GBSTATS_PYTHON", Path(__file__).parents[2] / ".venv-gbstats/bin/python"))
_PEER = """
import json, sys
from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.statistics import SampleMeanStatistic
out = []
for control, treatment, alpha, tuning in json.load(sys.stdin):
    a, b = (SampleMeanStatistic(n=n, sum=s, sum_squares=q) for n, s, q in (control, treatment))
    config = SequentialConfig(alpha=alpha, sequential_tuning_parameter=tuning, difference_type="absolute")
    test = SequentialTwoSidedTTest(a, b, config)
    out.append([*map(float, test.confidence_interval), float(test.p_value)])
json.dump(out, sys.stdout)
"""


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - nothing is written
    rng = np.random.default_rng([number, 4])
    cases = []
    for _ in range(CASES):
        arms = []
        for _ in range(2):
            values = rng.normal(rng.uniform(-1, 1), rng.uniform(0.1, 2), int(rng.integers(60, 4000)))
            arms.append((len(values), float(values.sum()), float((values**2).sum())))
        cases.append((*arms, float(rng.choice([0.01, 0.05, 0.1])), int(rng.integers(100, 50_000))))
    told = subprocess.run([PYTHON, "-c", _PEER], input=json.dumps(cases), text=True, capture_output=True, check=True)
    worst = max(_distance(ours(*case), peer) for case, peer in zip(cases, json.loads(told.stdout), strict=True))
    return {"cases": CASES, "largest_difference": worst}


def ours(control: Any, treatment: Any, alpha: float, tuning: int) -> list[float]:
    first, second = (Moments(n, total / n, squares - total * total / n) for n, total, squares in (control, treatment))
    interval = difference_of_means(first, second, alpha=alpha, planned_units=tuning)
    variance = first.variance / first.count + second.variance / second.count
    found = Difference(first.mean, second.mean, second.mean - first.mean, variance, first.count + second.count)
    return [interval.lower, interval.upper, found.p_value(alpha=alpha, planned_units=tuning)]


def _distance(mine: list[float], peer: list[float]) -> float:
    return max(abs(one - other) for one, other in zip(mine, peer, strict=True))


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    worst = max(trial["largest_difference"] for trial in trials)
    return {"cases": sum(trial["cases"] for trial in trials), "largest_difference": worst, "reached": worst <= 1e-9}
