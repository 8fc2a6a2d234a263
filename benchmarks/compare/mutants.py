"""Mistakes made on purpose, each in a process of its own: the row that guards against it must turn red.

One by one: `MUTANT=naive_z` for false_positives, `MUTANT=undeduplicated` for doubled_rows, `MUTANT=salt_dropped` and
`MUTANT=treatments_last` for conformance.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TARGET = "each mutant turns its row red"
TRIALS = 1
_RUN = """
import json, sys, tempfile
from pathlib import Path
import {key}
with tempfile.TemporaryDirectory() as folder:
    trial = {call}
print(json.dumps({key}.summary([trial])))
"""
MUTANTS = {
    "naive_z": ("false_positives", "false_positives.simulate(0, 60)"),
    "undeduplicated": ("doubled_rows", "doubled_rows.trial(Path(folder), 0)"),
    "salt_dropped": ("conformance", "conformance.trial(Path(folder), 0, 400)"),
    "treatments_last": ("conformance", "conformance.trial(Path(folder), 0, 400)"),
}


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - each makes its own
    return {
        name: {"mutant": _run(key, call, name), "product": _run(key, call, "")} for name, (key, call) in MUTANTS.items()
    }


def _run(key: str, call: str, mutant: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "MUTANT": mutant}
    command = [sys.executable, "-c", _RUN.format(key=key, call=call)]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    )
    return found


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    red = {name: not found["mutant"]["reached"] for name, found in trials[0].items()}
    green = all(found["product"]["reached"] for found in trials[0].values())
    return {"red": red, "product_stays_green": green, "reached": all(red.values()) and green}
