"""What all workers of an instance are at and have done, those that died included."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil

from emberline.serve import page
from emberline.serve.page import Counts, Reading

Key = tuple[str, str]  # model, version


class Ledger:
    """Adds up the workers' pages; used by one thread.

    Attributes:
        readings: the pages of living workers, as last looked at.
    """

    def __init__(self, pages: Path) -> None:
        self._pages = pages
        self._of_the_dead: dict[Key, Counts] = {}
        self._stopped: frozenset[int] = frozenset()
        self.readings: list[Reading] = []

    def look(self) -> None:
        """Reads all pages; those of the dead are added to what is kept of them, and removed."""
        alive = []
        for reading in page.read_all(self._pages):
            if psutil.pid_exists(reading.pid):
                alive.append(reading)
                continue
            self._of_the_dead[reading.key] = self._of_the_dead.get(reading.key, Counts()) + reading.counts
            page.drop(self._pages, reading.pid)
        self.readings = alive

    def counts(self, key: Key) -> Counts:
        """Of one version since the instance's start."""
        mine = (reading.counts for reading in self.readings if reading.key == key)
        return sum(mine, self._of_the_dead.get(key, Counts()))

    def hung(self, timeout_s: float) -> list[tuple[int, str]]:
        """Workers that will not go on by themselves, and why they are held to be so.

        A stopped process (SIGSTOP) is one when it was so at the look before as well.
        """
        stopped = frozenset(reading.pid for reading in self.readings if _is_stopped(reading.pid))
        found = dict.fromkeys(stopped & self._stopped, "it is stopped")
        for reading in self.readings:
            if reading.busy_s > timeout_s:
                found[reading.pid] = f"it has been at one batch for {reading.busy_s:.1f} s"
        self._stopped = stopped
        return list(found.items())


def living(pages: Path) -> list[Reading]:
    """The pages of workers that run."""
    return [reading for reading in page.read_all(pages) if psutil.pid_exists(reading.pid)]


def kill(pid: int) -> None:
    """Ends a worker at once; one that is gone counts as ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
