"""The append-only log of decisions, with the numbers that made them; written ahead of the status itself.

A line holds the status before (as a digest) and after. A controller killed between the line and the status finds, on
its return, a last line whose `before` is the status in force, and carries that decision out instead of making another.
"""

import time
from pathlib import Path
from typing import Any

from emberline.compare.assessment import Assessment
from emberline.compare.jsonlines import append_line, read_lines
from emberline.experiment import Experiment, Status
from emberline.paper import digest_of


def audit_path(experiments: Path, name: str) -> Path:
    return experiments / f"{name}.audit.jsonl"


def note(
    experiments: Path, experiment: Experiment, event: str, after: Status, assessment: Assessment | None = None
) -> None:
    """Writes down a decision that is about to be carried out."""
    line = {
        "time": time.time(),
        "experiment": experiment.name,
        "event": event,
        "reason": after.reason,
        "before": status_digest(experiment.status),
        "status": after.model_dump(),
        "assessment": assessment.model_dump(mode="json") if assessment else None,
    }
    append_line(audit_path(experiments, experiment.name), line)


def decided_but_not_done(experiments: Path, experiment: Experiment) -> Status | None:
    """The status that the last line decided on, if it was never put in force."""
    lines = read_audit(experiments, experiment.name)
    if not lines or lines[-1]["before"] != status_digest(experiment.status):
        return None
    after = Status.model_validate(lines[-1]["status"])
    return after if after != experiment.status else None


def last_revision(experiments: Path, name: str) -> int:
    """Highest revision ever used under this name, so that one begun anew never shares a configuration version."""
    return max((line["status"]["revision"] for line in read_audit(experiments, name)), default=0)


def decided_at(experiments: Path, name: str) -> float:
    """Unix time of the last decision; 0 when there was none."""
    lines = read_audit(experiments, name)
    return float(lines[-1]["time"]) if lines else 0.0


def read_audit(experiments: Path, name: str) -> list[dict[str, Any]]:
    return read_lines(audit_path(experiments, name))


def status_digest(status: Status) -> str:
    return digest_of(status.model_dump(mode="json"))
