"""Power and stopping size for a lift of 10 % on a rate of 5 %, with looks up to twice the fixed size.

The fixed size, for one look at 80 % power, is 31,234 units an arm. Runs that do not stop count with the cap. A sequence
is narrowest at the fixed size, as `emberline plan` advises; a planned decision ends at the cap.
"""

from pathlib import Path
from typing import Any

import numpy as np
from _simulate import arms, first_exclusion

from emberline.compare.sample_size import units_per_arm

TARGET = "power at cap 2x >= .85, mean stop <= 1.1x the fixed size"
TRIALS = 8
RUNS, LOOKS = 250, 300
FIXED = units_per_arm(0.05, 0.055)


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - nothing is written
    rng = np.random.default_rng([number, 2])
    cap = 4 * FIXED  # units of both arms at twice the fixed size
    batch = cap // LOOKS
    tuned_to = {"anytime": 2 * FIXED, "planned": cap}
    stops: dict[str, list[int]] = {"anytime": [], "planned": []}
    for _ in range(RUNS):
        counts, hits = arms(rng, LOOKS, batch, 0.5, (0.05, 0.055))
        for name, found in stops.items():
            look = first_exclusion(counts, hits, planned_units=tuned_to[name], planned=name == "planned")
            found.append(LOOKS + 1 if look is None else look + 1)
    return {"runs": RUNS, "fixed_per_arm": FIXED, **{f"stops_{name}": found for name, found in stops.items()}}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    said = {}
    for name in ("anytime", "planned"):
        stops = np.concatenate([trial[f"stops_{name}"] for trial in trials])
        said[f"cap_2x_{name}"] = round(float((stops <= LOOKS).mean()), 4)
        said[f"mean_stop_{name}"] = round(float(np.minimum(stops, LOOKS).mean() / LOOKS * 2), 4)
    reached = said["cap_2x_anytime"] >= 0.85 and said["mean_stop_anytime"] <= 1.1
    return {"runs": len(trials) * RUNS, **said, "reached": reached}
