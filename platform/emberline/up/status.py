"""What runs from a state folder, in lines."""

from pathlib import Path

import orjson
import psutil

from emberline.experiment import Found
from emberline.up.stack import running

_VERBS = ("serve", "route", "dashboard")


def status_lines(state: Path, experiments: Path, found: Found) -> list[str]:
    """One line for the stack, one a verb, one an experiment; what is down is said to be down.

    Args:
        found: what the folder of experiments holds.
    """
    stack = running(state)
    lines = [f"stack: up at {stack['address']} (pid {stack['pid']})" if stack else f"stack: nothing runs from {state}/"]
    for verb in _VERBS:
        path = state / f"{verb}.json"
        if not path.is_file():
            lines.append(f"{verb}: down")
            continue
        facts = orjson.loads(path.read_bytes())
        alive = psutil.pid_exists(facts["pid"])
        told = "  ".join(f"{key} {_told(value)}" for key, value in facts.items() if key != "created")
        lines.append(f"{verb}: {told}" if alive else f"{verb}: down (pid {facts['pid']} ended without saying so)")
    lines.append(f"rollout: pid {pid}" if (pid := _rollout_pid(experiments)) else "rollout: down")
    for experiment in sorted(found.all, key=lambda one: one.name):
        reason = f"  ({experiment.status.reason})" if experiment.status.reason else ""
        lines.append(f"experiment {experiment.name}: {experiment.progress}: {experiment.weights_text}{reason}")
        if experiment.upset and not experiment.terminal:
            lines.append(f"  {experiment.upset}")
    return [*lines, *(line for error in found.wrong.values() for line in str(error).splitlines())]


def _rollout_pid(experiments: Path) -> int | None:
    """The controller that moves traffic here, as its lock tells; None where there is none."""
    path = experiments / ".rollout.lock"
    said = path.read_text() if path.is_file() else ""
    return int(said) if said.isdecimal() and psutil.pid_exists(int(said)) else None


def _told(value: object) -> str:
    """A fact of a verb in words: `digits 1.0, 1.1`."""
    if isinstance(value, dict):
        return "; ".join(f"{key} {_told(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(_told(one) for one in value)
    return str(value)
