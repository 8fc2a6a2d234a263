"""How many requests routers sent to each variant, by their own count: what the exposures are held against.

A router counts for as long as it lives, over all steps; so the counts at the step's beginning are kept, and what a
restarted router had counted before. A request is counted before its exposure is on the disk: only a count that is older
than `SETTLED_S` is compared, so a slow shipper is no missing exposure. The file belongs to rollout, which writes it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import orjson

from emberline import storage
from emberline.compare.window import OfWindow, counted_since, read_of_window, variant_of
from emberline.experiment import Experiment
from emberline.paper import Frozen

SETTLED_S = 30.0
_EVERY_S = 5.0


class Count(Frozen):
    """Requests by variant since the step began, as counted at a time."""

    at: float
    requests: dict[str, int]


class Routed(OfWindow):
    """The counts of one configuration.

    Attributes:
        last: the router's counters as last read.
        counts: since the step began, oldest first: the newest settled one and those that are not settled yet.
    """

    last: dict[str, int]
    counts: tuple[Count, ...]

    @classmethod
    def begin(cls, config_version: str, counters: Mapping[str, int], now: float) -> Self:
        zero = Count(at=now, requests=dict.fromkeys(map(variant_of, counters), 0))
        return cls(config_version=config_version, last=dict(counters), counts=(zero,))

    def read(self, counters: Mapping[str, int], now: float) -> Self:
        """After another reading."""
        newest = self.counts[-1]
        if now - newest.at < _EVERY_S:
            return self
        requests = dict(newest.requests)
        for name, counter in counters.items():
            variant, more = variant_of(name), counted_since(counter, self.last.get(name, 0))
            requests[variant] = requests.get(variant, 0) + more
        settled = [count for count in self.counts if now - count.at >= SETTLED_S]
        kept = (*settled[-1:], *(count for count in self.counts if now - count.at < SETTLED_S))
        counts = (*kept, Count(at=now, requests=requests))
        return type(self)(config_version=self.config_version, last=dict(counters), counts=counts)

    def settled(self, now: float) -> dict[str, int] | None:
        """The newest count whose exposures must be there by now."""
        found = [count for count in self.counts if now - count.at >= SETTLED_S]
        return found[-1].requests if found else None


def routed_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.routed.json"


def load_routed(folder: Path, experiment: Experiment) -> Routed | None:
    """The counts of the experiment's window; None where no router was asked in it."""
    return read_of_window(routed_path(folder, experiment.name), Routed, experiment)


def read_routed(folder: Path, experiment: Experiment) -> dict[str, int] | None:
    """Requests by variant that must have left exposures by the last reading."""
    found = load_routed(folder, experiment)
    return None if found is None else found.settled(found.counts[-1].at)


def write_routed(folder: Path, name: str, counts: Routed) -> None:
    storage.write_bytes(routed_path(folder, name), orjson.dumps(counts.model_dump()))
