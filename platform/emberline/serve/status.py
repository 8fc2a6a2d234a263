"""What is told to the outside about a serving instance: one immutable snapshot at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from emberline.serve.page import Counts

Phase = Literal["starting", "serving", "restarting", "draining"]


@dataclass(frozen=True)
class VersionStatus:
    """One version, as far as it was seen.

    Attributes:
        workers: number of workers by TorchServe's word for their state.
        lost_workers: worker processes that ended since the start, restarts of TorchServe left out.
        problem: why it is not ready; empty when it is.
        counts: what its workers have done since the start.
        probe_s: how long the last probe took; None before the first.
    """

    model: str
    version: str
    ready: bool = False
    workers: Mapping[str, int] = field(default_factory=dict)
    pending: int = 0
    lost_workers: int = 0
    problem: str = "not looked at yet"
    probe_s: float | None = None
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True)
class Status:
    phase: Phase = "starting"
    versions: tuple[VersionStatus, ...] = ()
    torchserve_restarts: int = 0

    @property
    def ready(self) -> bool:
        return self.phase == "serving" and bool(self.versions) and all(version.ready for version in self.versions)

    def as_json(self) -> dict[str, Any]:
        return {
            "ready": self.ready,
            "phase": self.phase,
            "torchserve_restarts": self.torchserve_restarts,
            "versions": [
                {
                    "model": one.model,
                    "version": one.version,
                    "ready": one.ready,
                    "workers": dict(one.workers),
                    "pending": one.pending,
                    "lost_workers": one.lost_workers,
                    **({"problem": one.problem} if not one.ready else {}),
                    **({"probe_ms": round(one.probe_s * 1000, 2)} if one.probe_s is not None else {}),
                }
                for one in self.versions
            ],
        }


class Board:
    """Where the supervisor pins the newest status for threads that show it; replaced whole, so readers need no lock."""

    def __init__(self) -> None:
        self.status = Status()
