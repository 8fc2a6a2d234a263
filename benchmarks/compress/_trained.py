"""Nets trained for real, as a recipe left them in `runs/`: what they lost, and how fast they are side by side.

Trained once, in the background and for hours, by the two commands that stand at the top of the recipe, from the
repository's folder; a key that finds no run says so.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from runs import run_with

from emberline.artifact import Artifact, read_artifact
from emberline.measure import Candidate, measure
from emberline.measure.session import Measured, ModuleCandidate

ROOT = Path(__file__).parents[2]
BATCH_SIZES = (1, 8)
EAGER = "eager"

_MODULE = """
from pathlib import Path
from emberline import models
from emberline.artifact import read_artifact

def trained():
    folder = Path({folder!r})
    return models.build(folder, read_artifact(folder)[1], Path({search!r}))
"""


@dataclass(frozen=True)
class Trained:
    """A run with its artifacts and the report of its compression."""

    run: str
    folder: Path
    report: dict[str, Any]

    def losses(self, name: str) -> dict[str, Any]:
        """Accuracy, and the drop with its 95 % bound, on validation rows (held out of train) and on test rows."""
        one, baseline = self.report["artifacts"][name], self.report["artifacts"][self.report["baseline"]]
        return {
            "rows": one["measurement"]["rows"],
            "baseline": baseline["measurement"]["accuracy"],
            "accuracy": one["measurement"]["accuracy"],
            "drop": one["measurement"]["accuracy_drop"],
            "drop_below": one["drop_below"],
            "test": one["test"],
            "published": one["published"],
        }

    def packages(self, name: str) -> dict[str, Candidate]:
        """Each package of an artifact alone, the interpreted program left out."""
        folder = self.folder / "artifacts" / name
        _, artifact = read_artifact(folder)
        return {
            f"{name}/{package.file}": Candidate(f"{name}/{package.file}", folder, _alone(artifact, package.file))
            for package in artifact.packages
            if package.backend != "exported"
        }

    def eager(self, scratch: Path) -> ModuleCandidate:
        """The trained net as PyTorch runs it."""
        code = _MODULE.format(
            folder=str((self.folder / "artifacts" / "trained").resolve()), search=str(ROOT / "recipes")
        )
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / f"eager_{self.run.replace('-', '_')}.py").write_text(code)
        return ModuleCandidate(EAGER, f"eager_{self.run.replace('-', '_')}:trained", scratch)


def trained(run: str) -> Trained:
    """Raises:
    FileNotFoundError: the run is not there; names the recipe whose commands make it.
    """
    report = "compress/report.json"
    folder = run_with(run, report)
    return Trained(run, folder, json.loads((folder / report).read_bytes()))


def side_by_side(
    candidates: list[Candidate | ModuleCandidate], inputs: tuple[NDArray[Any], ...] | None = None
) -> dict[str, Measured]:
    """All of them in the same rounds, 1 thread, batch 1 and 8."""
    return measure(candidates, BATCH_SIZES, threads=1, memory=False, inputs=inputs)


def ratios(measured: dict[str, Measured], ours: list[str], peers: list[str]) -> dict[str, Any]:
    """How many times faster than eager and than the best peer's int8, by processor time, median over rounds."""
    found: dict[str, Any] = {}
    for batch in BATCH_SIZES:
        cpu = {name: one.timing(batch).cpu_median_ms for name, one in measured.items()}
        best, peer = min(ours, key=cpu.__getitem__), min(peers, key=cpu.__getitem__, default=None)
        found[str(batch)] = {
            "ms": {name: round(value, 4) for name, value in cpu.items()},
            "best": best,
            "best_peer": peer,
            "times_eager": _times(measured, EAGER, best, batch) if EAGER in measured else None,
            "times_peer": _times(measured, peer, best, batch) if peer else None,
            "mb": round(measured[best].size_bytes / 1e6, 2),
        }
    return found


def _times(measured: dict[str, Measured], slow: str, fast: str, batch: int) -> float:
    pair = [np.asarray(measured[name].timing(batch).cpu_ms) for name in (slow, fast)]
    return float(np.median(pair[0] / pair[1]))


def _alone(artifact: Artifact, file: str) -> dict[str, Any]:
    kept = tuple(package for package in artifact.packages if package.file == file)
    return artifact.model_copy(update={"packages": kept}).model_dump(mode="json")
