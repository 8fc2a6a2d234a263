"""What a search found so far, on disk as soon as it is found. No torch.

`runs/<run>/search/found-<key>.json`: the key holds all that answers depend on, so another recipe, other weights or
other code begin anew, and more `trials` or `evaluations` go on from here.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emberline import storage
from emberline.compress.plan import base_key, training_reads
from emberline.compress.search.select import Costs, Evaluated, Look
from emberline.compress.search.sought import Sought
from emberline.compress.search.space import Candidate, Net
from emberline.paper import digest_of

_BUDGETS = {"trials", "evaluations"}  # how long to search; what is found does not depend on it


@dataclass(frozen=True)
class Records:
    """Looks by net and evaluations by candidate, each under its key in words.

    Attributes:
        folder: of the search; the report lies there too.
    """

    folder: Path
    path: Path

    def look(self, net: Net) -> Look | str | None:
        """What was found, or why there is no such net; None before it was looked at."""
        found = self._read()["looks"].get(net.key)
        return found if found is None or isinstance(found, str) else Look(**found)

    def add_look(self, net: Net, look: Look | str) -> None:
        content = self._read()
        content["looks"][net.key] = look if isinstance(look, str) else asdict(look)
        self._write(content)

    def evaluation(self, candidate: Candidate) -> Evaluated | None:
        found = self._read()["evaluations"].get(candidate.key)
        if found is None:
            return None
        return Evaluated(candidate, Costs(**found["costs"]) if found["costs"] else None, found["failure"])

    def add_evaluation(self, one: Evaluated, least_accuracy: float | None) -> None:
        """Args:
        least_accuracy: below it the accuracy gate fails for certain; None where that was not found out.
        """
        content = self._read()
        costs = asdict(one.costs) if one.costs else None
        content["evaluations"][one.candidate.key] = {"costs": costs, "failure": one.failure}
        if least_accuracy is not None:
            content["least_accuracy"] = least_accuracy
        self._write(content)

    @property
    def least_accuracy(self) -> float | None:
        found: float | None = self._read()["least_accuracy"]
        return found

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {"looks": {}, "evaluations": {}, "least_accuracy": None}
        content: dict[str, Any] = json.loads(self.path.read_bytes())
        return content

    def _write(self, content: dict[str, Any]) -> None:
        storage.write_bytes(self.path, json.dumps(content, indent=1).encode())


def records_of(sought: Sought) -> Records:
    """The records of this very search."""
    job, settings = sought.job, sought.job.settings
    variants = [settings.artifacts[name].model_dump(mode="json") for name in (settings.baseline, sought.name)]
    key = digest_of(
        {
            "base": base_key(job.recipe, job.parent.digest, job.target, job.path.parent),
            "train": training_reads(job.recipe, job.path.parent),
            "search": sought.search.model_dump(mode="json", exclude=_BUDGETS),
            "artifacts": variants,
            "batch_sizes": settings.batch_sizes,
            "threads": settings.threads,
        }
    )
    folder = job.folder / "search"
    folder.mkdir(parents=True, exist_ok=True)
    return Records(folder, folder / f"found-{key[:20]}.json")
