"""What a router has seen, in a few kilobytes that add up over routers: for live views, never for decisions.

HyperLogLog for distinct units, REQ for the tail of latencies, count-min for the units that ask most, and a Bloom filter
that tells a unit's first exposure from its later ones. Merging is associative and commutative, an empty sketch changes
nothing, and the merge of several routers' sketches is the sketch of all their rows. Units are hashed ones, as in rows.

Needs the extra `sketches`. Source: Apache DataSketches (HLL, REQ, count-min) and rbloom.
"""

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from emberline import storage
from emberline.errors import EmberlineError, MissingTool
from emberline.exposure import Row

ENDING = ".sketch"
_LG_K = 12  # of HyperLogLog: 1.6 % standard error
_REQ_K = 12  # ranks near the top are known to within 1 %
_ROWS, _BUCKETS = 5, 2048
_HEAVIEST = 32
_FILTER_UNITS, _FILTER_ERROR = 200_000, 0.001

Key = tuple[str, str, str]
"""Experiment, configuration version, variant."""


def _datasketches() -> Any:
    try:
        import datasketches
    except ImportError as error:
        raise MissingTool(
            "datasketches", "sketches are made with it", hint="pip install 'emberline[sketches]'"
        ) from error
    return datasketches


def _bloom() -> Any:
    try:
        import rbloom
    except ImportError as error:
        raise MissingTool("rbloom", "sketches are made with it", hint="pip install 'emberline[sketches]'") from error
    return rbloom.Bloom


def _bits(unit: str) -> int:
    """A hashed unit as the number that it is; the same in every process, as Python's own hash is not."""
    return int(unit, 16) - (1 << 127)


@dataclass
class Sketch:
    """Of one variant under one configuration.

    Attributes:
        candidates: units that may be among the heaviest; their counts are the count-min sketch's.
        new_units: first exposures, as far as the filter can tell; a merge counts a unit once a router.
    """

    hll: Any = field(default_factory=lambda: _datasketches().hll_union(_LG_K))
    latencies: Any = field(default_factory=lambda: _datasketches().req_floats_sketch(_REQ_K, True))
    counts: Any = field(default_factory=lambda: _datasketches().count_min_sketch(_ROWS, _BUCKETS))
    seen: Any = field(default_factory=lambda: _bloom()(_FILTER_UNITS, _FILTER_ERROR, _bits))
    candidates: frozenset[str] = frozenset()
    new_units: int = 0

    def add(self, unit: str, latency_ms: float) -> bool:
        """One request; True when it is the unit's first."""
        first = unit not in self.seen
        self.seen.add(unit)
        self.new_units += first
        self.hll.update(unit)
        self.latencies.update(latency_ms)
        self.counts.update(unit)
        self._consider({unit})
        return first

    def merge(self, other: "Sketch") -> None:
        """Adds another router's."""
        self.hll.update(other.hll.get_result(_datasketches().HLL_8))
        self.latencies.merge(other.latencies)
        self.counts.merge(other.counts)
        self.seen.update(other.seen)
        self.new_units += other.new_units
        self._consider(other.candidates)

    def _consider(self, units: Iterable[str]) -> None:
        found = self.candidates | frozenset(units)
        if len(found) > 2 * _HEAVIEST:
            ordered = sorted(found, key=lambda unit: (-self.counts.get_estimate(unit), unit))
            found = frozenset(ordered[:_HEAVIEST])
        self.candidates = found

    @property
    def units(self) -> float:
        """Distinct units, by estimate."""
        return float(self.hll.get_estimate())

    @property
    def requests(self) -> int:
        return int(self.latencies.n)

    def latency_ms(self, share: float) -> float | None:
        """The latency that this share of requests lies below; None without requests."""
        return None if self.latencies.is_empty() else float(self.latencies.get_quantile(share))

    def heaviest(self, number: int = 5) -> list[tuple[str, int]]:
        """Units with the most requests, and how many those are at most."""
        counted = [(unit, int(self.counts.get_estimate(unit))) for unit in self.candidates]
        return sorted(counted, key=lambda one: (-one[1], one[0]))[:number]

    def dump(self) -> dict[str, Any]:
        hll = self.hll.get_result(_datasketches().HLL_8).serialize_compact()
        parts = {"hll": hll, "req": self.latencies.serialize(), "cms": self.counts.serialize()}
        texts = {name: bytes(part).hex() for name, part in parts.items()}
        return {**texts, "candidates": sorted(self.candidates), "new_units": self.new_units}

    @classmethod
    def load(cls, raw: dict[str, Any]) -> Self:
        """What `dump` wrote; the filter stays with its router, since nobody else asks it."""
        kit = _datasketches()
        found = cls(
            latencies=kit.req_floats_sketch.deserialize(bytes.fromhex(raw["req"])),
            counts=kit.count_min_sketch.deserialize(bytes.fromhex(raw["cms"])),
            candidates=frozenset(raw["candidates"]),
            new_units=raw["new_units"],
        )
        found.hll.update(kit.hll_sketch.deserialize(bytes.fromhex(raw["hll"])))
        return found


@dataclass
class Sketches:
    """A router's own, by configuration and variant, written for others to merge. For one thread."""

    folder: Path
    own: dict[Key, Sketch] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"{os.uname().nodename}-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        """Raises MissingTool where the extra is not there, before there is any row."""
        _datasketches()
        _bloom()

    def see(self, row: Row) -> None:
        """An exposure that came by; shadows reach nobody and are not counted."""
        if not row["shadow"]:
            key = (row["experiment"], row["config_version"], row["variant"])
            self.own.setdefault(key, Sketch()).add(row["unit"], row["latency_ms"])

    def write(self) -> None:
        content = [{"key": list(key), **sketch.dump()} for key, sketch in sorted(self.own.items())]
        storage.write_bytes(self.folder / f"{self.name}{ENDING}", orjson.dumps(content))


def merged(folder: Path, experiment: str, config_version: str) -> dict[str, Sketch]:
    """All routers' sketches of one configuration, by variant.

    Raises:
        EmberlineError: a file is broken.
    """
    found: dict[str, Sketch] = {}
    for path in sorted(folder.glob(f"*{ENDING}")):
        for (name, version, variant), sketch in _read(path):
            if (name, version) == (experiment, config_version):
                found.setdefault(variant, Sketch()).merge(sketch)
    return found


def _read(path: Path) -> Iterator[tuple[Key, Sketch]]:
    try:
        for raw in orjson.loads(path.read_bytes()):
            experiment, version, variant = raw["key"]
            yield (experiment, version, variant), Sketch.load(raw)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise EmberlineError(f"no sketches: {error}", place=path, hint="remove the file") from error
