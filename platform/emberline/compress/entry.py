"""One artifact as it was made, measured and judged: what table and report are drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emberline.artifact import Artifact, Measurement
from emberline.compress.chain import Done
from emberline.compress.gates import Outcome
from emberline.errors import StageFailed
from emberline.measure.session import Measured


@dataclass(frozen=True)
class Entry:
    """One artifact in the report.

    Attributes:
        measured: the package that leads its chain.
        analysis: sensitivities by layer and histograms of the weights.
        key: of everything it depends on, its measurement included.
        tried: why the recipe's stages, and fallbacks before the one taken, failed.
    """

    name: str
    stages: Sequence[Done]
    artifact: Artifact
    measured: Measured
    outcomes: tuple[Outcome, ...]
    failure: StageFailed | None
    analysis: dict[str, Any]
    key: str
    tried: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the last stage left the packages."""
        return self.stages[-1].folder

    @property
    def measurement(self) -> Measurement:
        if self.artifact.measurement is None:
            raise StageFailed("report", f"{self.name} was not measured")
        return self.artifact.measurement
