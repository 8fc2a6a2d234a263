"""Where experiments are read and their status is written: a folder here, custom resources in the cluster."""

from pathlib import Path
from typing import Protocol

from emberline.errors import EmberlineError
from emberline.experiment import Experiment, Status, read_folder, write_status
from emberline.rollout.requests import Request, read_request, remove_request


class Store(Protocol):
    def experiments(self) -> tuple[list[Experiment], list[EmberlineError]]:
        """All experiments with their status, and what is wrong with those that cannot be read."""

    def write_status(self, experiment: Experiment, status: Status) -> None:
        """Puts a status in force; a reader sees the old one or the new one."""

    def requested(self, experiment: Experiment) -> Request | None:
        """What a person asked for and was not carried out yet."""

    def forget_request(self, experiment: Experiment) -> None:
        """The request was carried out."""


class FolderStore:
    """Experiments as files of one folder, each status beside its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def experiments(self) -> tuple[list[Experiment], list[EmberlineError]]:
        found = read_folder(self.folder)  # what is wrong is reported by the loop; the others go on
        return found.all, list(found.wrong.values())

    def write_status(self, experiment: Experiment, status: Status) -> None:
        write_status(self.folder, experiment.name, status)

    def requested(self, experiment: Experiment) -> Request | None:
        return read_request(self.folder, experiment.name)

    def forget_request(self, experiment: Experiment) -> None:
        remove_request(self.folder, experiment.name)
