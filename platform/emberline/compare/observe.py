"""Exposures and outcomes of one ramp step, read partition after partition in bounded memory, by DuckDB.

Rows of one unit meet in one partition, so each partition is joined alone and the sums add up. A partition too large for
memory is read in slices of its units. Rows that are there twice (a shipper that was killed between writing and noting
it) count once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from emberline.compare.observations import Observations
from emberline.compare.reread import read_rows
from emberline.compare.sums import Question, observe_rows, total
from emberline.experiment import Experiment, Segment
from emberline.exposure import EXPOSURES, OUTCOMES

MEMORY_LIMIT = "512MB"
BATCH_BYTES = 48 << 20  # of compressed Parquet: partitions that are read together
SLICE_BYTES = 160 << 20  # above it, a partition is read in slices; some three times that in memory


def observe(
    experiment: Experiment,
    data: Path,
    *,
    until: float | None = None,
    threads: int = 2,
    exploratory: Sequence[Segment] = (),
) -> Observations:
    """Sums of the step that the experiment is in, or of the one it was judged on; nothing seen is no error.

    Args:
        data: folder of `exposures/` and `outcomes/`.
        until: Unix time; later rows do not count.
        exploratory: segments to look at that the experiment did not declare.

    Raises:
        EmberlineError: a file is broken, or files changed each time they were read.
    """
    window = experiment.window
    if window is None or experiment.upset:  # the rows were made under another spec
        return Observations()
    asked = Question(experiment, window, until, tuple(exploratory))
    return read_rows(data, lambda: _observe(asked, data, threads))


def _observe(asked: Question, data: Path, threads: int) -> Observations:
    with duckdb.connect(":memory:", config={"memory_limit": MEMORY_LIMIT, "threads": threads}) as connection:
        connection.execute("SET preserve_insertion_order = false")
        engine = DuckDB(connection)
        return total(_observe_batch(engine, asked, batch) for batch in _batches(data))


@dataclass(frozen=True)
class Batch:
    """Files of whole partitions, and how many slices of their units fit into memory."""

    exposures: tuple[str, ...]
    outcomes: tuple[str, ...]
    slices: int = 1


def _batches(data: Path) -> Iterator[Batch]:
    """Whole partitions, as many together as `BATCH_BYTES` allow.

    Young experiments have many small files: one query over all of them costs a tenth of one a partition. Outcomes that
    lie beside the partitions may be of any unit, and are read with each batch.
    """
    unsorted = sorted((data / "outcomes").glob("*.parquet"))
    exposures: list[Path] = []
    outcomes: list[Path] = []
    for partition in sorted((data / "exposures").glob("part=*")):
        exposures += sorted(partition.glob("*.parquet"))
        outcomes += sorted((data / "outcomes" / partition.name).glob("*.parquet"))
        if sum(path.stat().st_size for path in (*exposures, *outcomes)) > BATCH_BYTES:
            yield _batch(exposures, [*outcomes, *unsorted])
            exposures, outcomes = [], []
    if exposures:
        yield _batch(exposures, [*outcomes, *unsorted])


def _batch(exposures: Sequence[Path], outcomes: Sequence[Path]) -> Batch:
    size = sum(path.stat().st_size for path in (*exposures, *outcomes))
    return Batch(tuple(map(str, exposures)), tuple(map(str, outcomes)), math.ceil(size / SLICE_BYTES))


def _observe_batch(engine: "DuckDB", asked: Question, batch: Batch) -> Observations:
    engine.open("exposures", EXPOSURES, batch.exposures)
    engine.open("outcomes", OUTCOMES, batch.outcomes, grown=True)
    slices = (
        [f"hash(unit) % {batch.slices} = {index}" for index in range(batch.slices)] if batch.slices > 1 else ["TRUE"]
    )
    return total(observe_rows(engine, asked, where) for where in slices)


@dataclass(frozen=True)
class DuckDB:
    """An engine over files, in tables of its own."""

    connection: duckdb.DuckDBPyConnection
    kinds: dict[str, str] = field(default_factory=dict)  # whether a name is a table or a view, by name

    def open(self, name: str, schema: Any, files: Sequence[str], *, grown: bool = False) -> None:
        """Gives files a name; without any, the name of an empty table.

        Args:
            grown: files of earlier versions lack columns, whose values are null then.
        """
        if files:
            paths = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            by_name = ", union_by_name = true" if grown else ""
            rows = f"SELECT * FROM read_parquet([{paths}], hive_partitioning = false{by_name})"  # noqa: S608 - quoted
            if grown:
                self.connection.register(f"no_{name}", schema.empty_table())
                rows = f"SELECT * FROM no_{name} UNION ALL BY NAME {rows}"  # noqa: S608 - same
            self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {rows}")
        else:
            self.connection.register(name, schema.empty_table())

    def key(self, column: str) -> str:
        """64 bits in place of 32 characters.

        Two ids that share a key would be taken for one. Of a partition's million units that happens once in 37 million
        looks, and a request's key counts together with its unit's.
        """
        return f"hash({column})"

    def hint(self, left: str, right: str) -> str:  # noqa: ARG002 - DuckDB needs no advice
        return ""

    def define(self, name: str, select: str, *, keep: bool = True) -> None:
        if (before := self.kinds.get(name)) is not None:
            self.connection.execute(f"DROP {before} {name}")
        kind = self.kinds[name] = "TABLE" if keep else "VIEW"
        self.connection.execute(f"CREATE TEMP {kind} {name} AS {select}")

    def fetch(self, select: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(select).fetchall()
