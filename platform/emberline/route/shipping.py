"""A thread that turns logs into rows, once a second: what Envoy wrote of requests, what clients told of outcomes."""

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from emberline.errors import EmberlineError
from emberline.experiment import Experiment
from emberline.exposure import EXPOSURES, OUTCOMES, Row, parse_line
from emberline.route.folders import Folders
from emberline.route.instance import Instance
from emberline.route.outcomes import Journal, read_spooled
from emberline.route.samples import Samples
from emberline.route.sketches import Sketches
from emberline.route.spool import Shipper, Spool

_EVERY_S = 1.0


class Shipping:
    """Runs until `stopping` is set; `finish` then ships what was written since.

    Args:
        taps: folder of mirrored requests' bodies; None where no samples are kept.
        exposures: what the Envoys write to.
        outcomes: what the journal writes to.
        key: units are hashed with it.
    """

    def __init__(
        self,
        folders: Folders,
        taps: Path | None,
        exposures: Spool,
        outcomes: Spool,
        key: bytes,
        *,
        instances: Sequence[Instance],
        journal: Journal,
        stopping: threading.Event,
        complain: Callable[[str], None],
    ) -> None:
        self._folders, self._instances, self._journal = folders, instances, journal
        self._stopping, self._complain = stopping, complain
        data = folders.data
        self._samples = Samples(taps, data / "samples") if taps is not None else None
        self._sketches = Sketches(data / "sketches") if folders.sketches else None

        def parse(line: bytes) -> Row:
            row = parse_line(line, key)
            for watcher in (self._samples, self._sketches):
                if watcher is not None:
                    self._show(watcher, row)
            return row

        self._exposure_shipper = Shipper(exposures, data / "exposures", EXPOSURES, parse, complain=complain)
        self._outcome_shipper = Shipper(
            outcomes, data / "outcomes", OUTCOMES, read_spooled, unique=("unit", "event_id"), complain=complain
        )
        self._written = False
        self._unwritten: dict[int, int] = {}
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    def _show(self, watcher: Samples | Sketches, row: Row) -> None:
        """What views are made of; a view that cannot be had costs no row."""
        try:
            watcher.see(row)
        except EmberlineError as error:
            self._complain(f"a live view misses a row: {error}")

    def prepare(self) -> None:
        """Makes the folders that Envoy writes bodies to."""
        if self._samples is not None:
            self._samples.prepare()

    def know(self, experiments: Iterable[Experiment]) -> None:
        """Which experiments there are now, for samples of their shadows."""
        if self._samples is not None:
            self._samples.know(experiments)

    def start(self) -> None:
        self._thread.start()

    def running(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> None:
        """Once nobody writes any more: waits for the thread and ships the rest."""
        if self._thread.ident is not None:  # it was started
            self._thread.join()
            self._written = True
            self._ship()

    def _ship(self) -> None:
        """Ships what is new. The generations in use stay open until nobody is left to write to them."""

        def may_grow(path: Path) -> bool:
            return any(one.has_open(path, written=self._written) for one in self._instances)

        self._exposure_shipper.ship(may_grow)
        if self._samples is not None:
            self._samples.sort()
            self._samples.forget(self._folders.keep_samples_s)
        if self._sketches is not None:
            self._sketches.write()
        self._outcome_shipper.ship(lambda path: self._journal.is_open(path) and not self._written)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            try:
                self._ship()
            except OSError as error:  # disk full: the logs keep what was not shipped, and it is tried again
                self._complain(f"not shipped yet, will be tried again: {error}")
            self._look_for_unwritten()

    def _look_for_unwritten(self) -> None:
        """Envoy drops what it cannot write to its log; nobody else would tell."""
        for instance in self._instances:
            before = self._unwritten.get(instance.pid, 0)
            failed = instance.admin.count("filesystem.write_failed")
            if failed > before:
                fact = f"Envoy could not write its log {failed - before} times: the exposures in these writes are lost"
                self._complain(f"{fact}, and assessments will miss them")
            self._unwritten[instance.pid] = max(failed, before)
