"""Units whose variant in Envoy equals the one computed in Python: by weight, after a ramp, by layer and in a holdout.

Mutants: `MUTANT=salt_dropped` and `MUTANT=treatments_last` start the router with that mistake; `mutants.py` runs them.
"""

from pathlib import Path
from typing import Any

from _router import Router, ask_units, router

from emberline.assignment import assign, layer_bucket

TARGET = "10,000 of 10,000 by weight, and of 10,000 by layer and holdout; a ramp moves none but those it must"
TRIALS = 1
UNITS = [f"person-{n}" for n in range(5000)] + [f"Ünïcode 日本 😀 {n}" for n in range(5000)]
LAYER = "ranking"


def trial(folder: Path, number: int, units: int = len(UNITS)) -> dict[str, Any]:  # noqa: ARG001 - the units are the same
    asked = UNITS[: units // 2] + UNITS[-(units // 2) :]
    with router(folder / "weights") as running:
        first = running.write("trial", 1000)
        running.start()
        running.await_config(first)
        before = _variants(running, asked)
        running.await_config(running.write("trial", 3000, revision=1))
        after = _variants(running, asked)
    wrongly_moved = sum(a != b and not (a == "fp32" and b == "int8") for a, b in zip(before, after, strict=True))
    with router(folder / "layers", "--holdout", "0.1") as running:
        running.write("one", 3000, layer={"name": LAYER, "buckets": [0, 4000]})
        last = running.write("two", 7000, layer={"name": LAYER, "buckets": [5000, 8000]})
        running.start()
        running.await_config(last)
        answers = ask_units(running.port, asked)
    got = [(one["x-config-version"].partition("-")[0], one["x-variant"]) for one in answers]
    return {
        "tried": len(asked),
        "equal": sum(a == _arm("trial", unit, 1000) for a, unit in zip(before, asked, strict=True)),
        "equal_after_ramp": sum(a == _arm("trial", unit, 3000) for a, unit in zip(after, asked, strict=True)),
        "wrongly_moved": wrongly_moved,
        "equal_by_layer_and_holdout": sum(a == _slice(unit) for a, unit in zip(got, asked, strict=True)),
    }


def _variants(running: Router, units: list[str]) -> list[str]:
    return [one["x-variant"] for one in ask_units(running.port, units)]


def _arm(salt: str, unit: str, weight: int) -> str:
    return ("int8", "fp32")[assign(salt, unit, (weight, 10_000 - weight))]


def _slice(unit: str) -> tuple[str, str]:
    bucket = layer_bucket(LAYER, unit)
    if layer_bucket("holdout", unit) < 1000 or 4000 <= bucket < 5000 or bucket >= 8000:
        return "default", "default"
    name, weight = ("one", 3000) if bucket < 4000 else ("two", 7000)
    return name, _arm(name, unit, weight)


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    found = trials[0]
    every = [found[name] for name in ("equal", "equal_after_ramp", "equal_by_layer_and_holdout")]
    reached = all(one == found["tried"] for one in every) and not found["wrongly_moved"]
    return {**found, "reached": reached}
