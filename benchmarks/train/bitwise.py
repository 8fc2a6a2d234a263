"""Random schedules of kills and resizes of a small net with dropout, batch norm and bfloat16: are the bits the same?

A trial is ten schedules. Each starts 1 to 4 workers, kills one of them (the rest follow, as an agent does it) or takes
notice of all by SIGTERM, at steps drawn at random, and goes on with another number of workers, until the run ends. Its
weights and the loss of every step are compared with those of one worker that nobody disturbed.

Mutants must turn it red: EMBERLINE_BENCH_MUTANT=tree (the order of additions depends on the number of workers) or
EMBERLINE_BENCH_MUTANT=buffers (batch-norm statistics are lost with a worker):

    EMBERLINE_BENCH_MUTANT=tree python benchmarks/suite.py train ONLY=bitwise FRESH=1
"""

import hashlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import _toy
import _worlds

TARGET = "100 random schedules, all equal in weights and in every loss"
TRIALS = 10
SCHEDULES = 10  # of a trial
_MUTANT = os.environ.get("EMBERLINE_BENCH_MUTANT", "")


def trial(folder: Path, number: int) -> dict[str, Any]:
    wanted = bits(undisturbed(folder / "undisturbed"))
    schedules = []
    for index in range(SCHEDULES):
        chance = random.Random(1000 * number + index)
        run, deaths = disturbed(folder / f"schedule-{index}", chance)
        schedules.append({"equal": bits(run) == wanted, "deaths": deaths})
    return {"schedules": schedules, "weights": wanted[0]}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    schedules = [one for trial in trials for one in trial["schedules"]]
    # a schedule counts only with at least one death whose pid, step and changed generation are on record
    counted = [
        one
        for one in schedules
        if one["deaths"] and all(d["generation_after"] > d["generation"] for d in one["deaths"])
    ]
    equal = sum(one["equal"] for one in counted)
    deaths = sum(len(one["deaths"]) for one in counted)
    whole = len(counted) >= TRIALS * SCHEDULES
    return {
        "tried": len(counted), "equal": equal, "deaths": deaths, "uncounted": len(schedules) - len(counted),
        "reached": whole and equal == len(counted),
    }  # fmt: skip


def undisturbed(folder: Path) -> Path:
    recipe = _toy.make(folder)
    with _worlds.world(recipe, 1) as workers:
        _worlds.finish(workers)
    return folder / "runs" / "toy"


def disturbed(folder: Path, chance: random.Random) -> tuple[Path, list[dict[str, Any]]]:
    """Trains through one to three deaths; returns the run and the record of each."""
    recipe, run = _toy.make(folder), folder / "runs" / "toy"
    deaths: list[dict[str, Any]] = []
    steps = sorted(chance.sample(range(1, _toy.TOTAL_STEPS - 6), chance.randint(1, 3)))
    for generation, step in enumerate([*steps, None], start=1):
        with _worlds.world(recipe, chance.randint(1, 4), mutant=_MUTANT) as workers:
            if step is None:
                _worlds.finish(workers)
                continue
            at = _worlds.wait_for_step(run, workers, generation, step)
            kind, victim = chance.choice(["kill", "kill", "notice"]), chance.choice(workers)
            os.kill(victim.pid or 0, signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            victim.join()
            deaths.append(
                {"pid": victim.pid, "step": at, "kind": kind, "workers": len(workers), "code": victim.exitcode}
            )
    worlds = _worlds.events(run, "world")
    for death, before, after in zip(deaths, worlds, worlds[1:], strict=False):
        death |= {"generation": before["generation"], "generation_after": after["generation"]}
    if any("generation" not in death for death in deaths):
        raise RuntimeError(f"a death changed no generation: {deaths}")
    return run, deaths


def bits(run: Path) -> tuple[str, tuple[float, ...]]:
    """Hash of the weights, and the loss of each step as it was computed last."""
    weights = hashlib.sha256((run / "artifacts" / "trained" / "model.safetensors").read_bytes()).hexdigest()
    losses = {event["step"]: event["loss"] for event in _worlds.events(run, "step")}
    return weights, tuple(losses[step] for step in sorted(losses))
