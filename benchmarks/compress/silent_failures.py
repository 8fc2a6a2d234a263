"""Failures that are served in silence elsewhere: fp32 as int8, int8 without VNNI, a wrong batch, another ISA or torch.

MUTANT=fp32_fallback|no_vnni|wrong_batch|isa_or_version takes that guard away (in the child process alone) and must turn
the key red: `MUTANT=no_vnni make bench-compress ONLY=silent_failures FRESH=1`; run it once more without it afterwards.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCENARIOS = ("fp32_fallback", "no_vnni", "wrong_batch", "isa_or_version")
TARGET = "4 of 4 caught, and none of them once its guard is taken away"
TRIALS = 1
# this CPU may have what a scenario is to be without: oneDNN then computes as if it had not
_EMULATED = {"no_vnni": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the same each time
    mutant = os.environ.get("MUTANT", "")
    if mutant and mutant not in SCENARIOS:
        raise ValueError(f"MUTANT={mutant}; one of {', '.join(SCENARIOS)} is required")
    found = {}
    for name in SCENARIOS:
        guarded = _run(folder / name, name, without=mutant == name)
        # a guard that is away and still shows "caught" would prove nothing
        unguarded = _run(folder / f"{name}-without", name, without=True)
        found[name] = {"with_guard": guarded, "without_guard": unguarded}
    return {"mutant": mutant, "scenarios": found}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    last = trials[-1]["scenarios"]
    caught = sum(one["with_guard"]["caught"] for one in last.values())
    proven = sum(not one["without_guard"]["caught"] for one in last.values())
    return {"tried": len(last), "caught": caught, "red_without_guard": proven, "reached": caught == proven == len(last)}


def _run(folder: Path, name: str, *, without: bool) -> dict[str, Any]:
    command = [
        sys.executable,
        Path(__file__).with_name("_failures.py"),
        folder,
        name,
        *(["without"] if without else []),
    ]
    environment = {**os.environ, **_EMULATED.get(name, {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        return {"caught": False, "said": f"the process ended with {done.returncode}: {last[0][:200]}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
