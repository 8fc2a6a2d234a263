"""What runs from a state folder, in lines."""

from pathlib import Path

import orjson
import psutil

from emberline.experiment import load_experiments
from emberline.up.stack import running

_VERBS = ("serve", "route", "dashboard")


def status_lines(state: Path) -> list[str]:
    """One line for the stack, one a verb, one an experiment; what is down is said to be down."""
    stack = running(state)
    lines = [f"stack: up at {stack['address']} (pid {stack['pid']})" if stack else f"stack: nothing runs from {state}/"]
    for verb in _VERBS:
        path = state / f"{verb}.json"
        if not path.is_file():
            lines.append(f"{verb}: down")
            continue
        facts = orjson.loads(path.read_bytes())
        alive = psutil.pid_exists(facts["pid"])
        told = "  ".join(f"{key} {value}" for key, value in facts.items() if key != "created")
        lines.append(f"{verb}: {told}" if alive else f"{verb}: down (pid {facts['pid']} ended without saying so)")
    for experiment in load_experiments(state / "experiments"):
        status = experiment.status
        weights = ", ".join(f"{name} {weight}" for name, weight in status.weights.items()) or "none yet"
        reason = f"  ({status.reason})" if status.reason else ""
        lines.append(f"experiment {experiment.name}: {status.phase}, step {status.step}, weights {weights}{reason}")
    return lines
