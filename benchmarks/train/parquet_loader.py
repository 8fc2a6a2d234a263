"""The loader alone: shuffled, decoded and normalised pictures a second, beside HF datasets, Grain and memory.

Every loader is a process of its own, reads the same JPEGs from the same files in an order of its own shuffling, and
ends with a float32 batch. The peers live in `.venv-loaders`:

    python3 -m venv .venv-loaders && .venv-loaders/bin/pip install -r benchmarks/train/peers.txt
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import _images

TARGET = "stated; every row once"
TRIALS = 5
ROWS = 8000
HERE = Path(__file__).parent
PEERS = HERE.parents[1] / ".venv-loaders" / "bin" / "python"
LOADERS = ("emberline", "memory", "datasets", "grain")


def trial(folder: Path, number: int) -> dict[str, Any]:
    if not PEERS.exists():
        raise SystemExit(f"error: {PEERS} is missing\nhint: the docstring of {Path(__file__).name} says how to make it")
    _images.write(folder, ROWS)
    facts: dict[str, Any] = {}
    for turn in range(len(LOADERS)):
        name = LOADERS[(turn + number) % len(LOADERS)]
        python, script = (sys.executable, "_loaders.py") if name in LOADERS[:2] else (PEERS, "_peer_loaders.py")
        command = [str(python), str(HERE / script), name, str(folder)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
        facts[name] = json.loads(output.splitlines()[-1])
    return facts


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    rates = {name: round(median(one[name]["samples_per_s"] for one in trials)) for name in LOADERS}
    once = all(one["emberline"]["rows"] == ROWS == one["emberline"]["distinct"] for one in trials)
    return {**rates, "each_row_once": once, "reached": once}
