"""A recipe trained from one end to the other, once undisturbed and once with workers killed at random.

The undisturbed run stays in `runs/` (or `$EMBERLINE_RUNS`), where `bench-compress` finds it; one that is there already
is taken. Rows come from `data/` (or `$EMBERLINE_DATA`).
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _agents
import _worlds
from runs import RUNS

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("EMBERLINE_DATA", ROOT / "data")).resolve()
TRIALS = 2
_BETWEEN_S = (15.0, 60.0)
_TIMEOUT_S = 4 * 3600


def trial(recipe: str, settings: list[str], number: int, compressing: list[str] | None = None) -> dict[str, Any]:
    """The first trial is undisturbed and reads the test file, the others have workers killed.

    Args:
        compressing: settings besides, of the compression that reads the test file.
    """
    facts = train(recipe, settings, killed=number > 0)
    return facts if number else {**facts, "test": test_accuracy(recipe, [*settings, *(compressing or [])])}


def summary(trials: list[dict[str, Any]], least: float = 0.0) -> dict[str, Any]:
    """What the trials came to; reached are the same bits, and that accuracy of the test file."""
    test, same = trials[0]["test"], equal(trials)
    return {
        "test_accuracy": round(test["accuracy"], 4), "test_rows": test["rows"], "equal": same,
        "kills": len(trials[-1]["deaths"]), "training_s": [one["training_s"] for one in trials],
        "reached": len(trials) >= TRIALS and test["accuracy"] >= least and same and bool(trials[-1]["deaths"]),
    }  # fmt: skip


def train(recipe: str, settings: list[str], *, killed: bool) -> dict[str, Any]:
    """One training; what it came to, and the deaths on record.

    Raises:
        FileNotFoundError: the rows are not there.
    """
    if not DATA.is_dir():
        raise FileNotFoundError(f"{DATA} is not there; name the folder that has the recipe's rows in EMBERLINE_DATA")
    name = Path(recipe).stem + ("-killed" if killed else "")
    RUNS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "emberline.cli", "train", str(ROOT / "recipes" / recipe), "--runs", str(RUNS)]
    command += ["--nproc-per-node", "2", "--max-restarts", "1000"]
    for setting in [f"run={name}", *settings]:
        command += ["--set", setting]
    deaths: list[dict[str, Any]] = []
    with _agents.started(command, RUNS) as child:
        if killed:
            deaths = _kill_until_done(child, RUNS / name)
        if child.wait(_TIMEOUT_S):
            raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}; see {RUNS / 'output.txt'}")
    return {"run": name, **_outcome(RUNS / name), "deaths": deaths}


def test_accuracy(recipe: str, settings: list[str]) -> dict[str, Any]:
    """Rows and accuracy of the undisturbed run's fp32 artifact on the test file, which compress reads once."""
    command = [sys.executable, "-m", "emberline.cli", "compress", str(ROOT / "recipes" / recipe), "--runs", str(RUNS)]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, check=True, timeout=_TIMEOUT_S, stdout=subprocess.DEVNULL)
    report = json.loads((RUNS / Path(recipe).stem / "compress" / "report.json").read_bytes())
    return dict(report["artifacts"][report["baseline"]]["test"])


def equal(trials: list[dict[str, Any]]) -> bool:
    """Whether the killed runs came to the bits of the undisturbed one, weights and the loss of every step."""
    return len({(one["weights"], one["losses"]) for one in trials}) == 1


def _kill_until_done(child: subprocess.Popen[bytes], run: Path) -> list[dict[str, Any]]:
    """Kills a random worker every now and then; a kill counts with the generation that followed."""
    chance, deaths, generation = random.Random(1), [], 0
    while True:
        try:
            world = _agents.wait_for_world(run, generation, 300)
            generation = world["generation"]
            if deaths:
                deaths[-1] |= {"generation_after": generation, "step_after": world["step"]}
            child.wait(chance.uniform(*_BETWEEN_S))
        except subprocess.TimeoutExpired:
            pid = chance.choice(world["pids"])
            deaths.append({"pid": pid, "step": _worlds.events(run, "step")[-1]["step"], "time": time.time()})
            os.kill(pid, signal.SIGKILL)
        else:
            return deaths


def _outcome(run: Path) -> dict[str, Any]:
    facts = json.loads((run / "manifest.json").read_text())["facts"]
    losses = {event["step"]: event["loss"] for event in _worlds.events(run, "step")}
    weights = (run / "artifacts" / "trained" / "model.safetensors").read_bytes()
    kept = {key: facts[key] for key in ("accuracy", "rows", "epochs", "steps", "restarts", "steps_lost", "goodput")}
    return {
        **kept, "training_s": facts["seconds"], "steps_logged": len(losses),
        "weights": hashlib.sha256(weights).hexdigest(),
        "losses": hashlib.sha256(json.dumps(sorted(losses.items())).encode()).hexdigest(),
    }  # fmt: skip
