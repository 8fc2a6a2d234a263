"""The folder of experiments, as it is now: what changed, and what of it can be used.

A file that cannot be read keeps its last good version in force and is named; the others go on without it. An experiment
that has begun goes on as it began, as its status tells, whatever becomes of its file: rollout alone moves its traffic.
"""

import os
from collections.abc import Callable
from pathlib import Path

from emberline.errors import EmberlineError
from emberline.experiment import Deployed, Experiment, Found, load_deployed, read_folder


class ExperimentsFolder:
    """Experiments of a folder, with the last good version of each.

    Args:
        check: raises an EmberlineError for an experiment that cannot be routed.
        check_deployed: the same for a version put in force without one.

    Attributes:
        deployed: versions put in force without an experiment, by model.
    """

    def __init__(
        self,
        folder: Path,
        check: Callable[[tuple[Experiment, ...]], None],
        check_deployed: Callable[[Deployed], None] = lambda _: None,
    ) -> None:
        self.folder, self._check, self._check_deployed = folder, check, check_deployed
        self._good: dict[Path, Experiment] = {}
        self.deployed: dict[str, Deployed] = {}
        self._seen: object = None
        self.refused: dict[str, EmberlineError] = {}

    def changed(self) -> bool:
        """Whether files came, went, or were written since the last call; ConfigMap swaps included."""
        now = sorted(
            (path.name, status.st_mtime_ns, status.st_size, status.st_ino)
            for pattern in ("*.yaml", "*.status.json", "*.deployed.json")
            for path in self.folder.glob(pattern)
            if (status := _stat(path)) is not None
        )
        before, self._seen = self._seen, now
        return now != before

    def read(self) -> tuple[Experiment, ...]:
        """All usable experiments, by name; `refused` tells why others are not, or not in their newest version."""
        found = read_folder(self.folder)
        self._look(found)
        if self.refused:
            self._look(found)  # what stood in its way may have gone by the same change
        self._look_at_deployed()
        return tuple(sorted(self._good.values(), key=lambda experiment: experiment.name))

    def _look(self, found: Found) -> None:
        self.refused = {path.name: error for path, error in found.wrong.items()}
        paths = sorted((*found.unclaimed, *found.experiments, *found.wrong))
        usable: dict[Path, Experiment] = {}
        for index, path in enumerate(paths):
            # a file that changes must get along with what is in force already, not push it aside
            later = (self._good[other] for other in paths[index + 1 :] if other in self._good)
            experiment = self._newest(path, found, (*usable.values(), *later))
            if experiment is not None:
                usable[path] = experiment
        self._good = usable

    def _look_at_deployed(self) -> None:
        """Versions put in force without an experiment; one that cannot be used leaves the last one in force."""
        before, self.deployed = self.deployed, {}
        for path in sorted(self.folder.glob("*.deployed.json")):
            model = path.name.removesuffix(".deployed.json")
            try:
                found = load_deployed(path)
                self._check_deployed(found)
            except EmberlineError as error:
                self.refused[path.name] = error
                if model in before:
                    self.deployed[model] = before[model]
            else:
                self.deployed[model] = found

    def _newest(self, path: Path, found: Found, others: tuple[Experiment, ...]) -> Experiment | None:
        """The file's experiment, or the last one of it that was good and still is, beside the others."""
        experiment = found.experiments.get(path) or found.unclaimed.get(path)
        last = self._good.get(path)
        if experiment is None and last is not None:
            experiment = next((one for one in found.unclaimed.values() if one.name == last.name), None)
        if experiment is not None and experiment.edited and experiment.status.spec is None:
            self.refused[path.name] = EmberlineError(experiment.upset or "", place=path)
            experiment = _as_begun(experiment, last)
        for candidate in (experiment, last):
            if candidate is None or any(candidate.name == other.name for other in others):
                continue
            try:
                self._check((*others, candidate))
            except EmberlineError as error:  # of the last one, too: another experiment took its model meanwhile
                self.refused.setdefault(path.name, error)
            else:
                if candidate.upset and not candidate.terminal:
                    self.refused.setdefault(path.name, EmberlineError(candidate.upset, place=path))
                return candidate
        return None


def _as_begun(edited: Experiment, last: Experiment | None) -> Experiment | None:
    """With the spec that it began with, which statuses of earlier versions do not hold: as this router has seen it."""
    if last is None or last.spec_digest != edited.status.spec_digest:
        return None
    return last.under(edited.status).model_copy(update={"edited": edited.edited})


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # it went between the listing and now: the next look sees that
        return None
