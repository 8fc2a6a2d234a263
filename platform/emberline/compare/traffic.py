"""What the traffic of a model has been lately: what a plan needs to know of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from emberline.compare.moments import Moments
from emberline.compare.queries import EXPOSURE_METRICS
from emberline.compare.reread import read_rows
from emberline.experiment import Experiment, Metric

DAYS = 14.0
_MEMORY = "512MB"
_NO_OUTCOMES = "SELECT NULL::BIGINT AS received_us WHERE FALSE"  # files of earlier versions lack the column
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Traffic:
    """Of the last `DAYS` days, as far as there are rows.

    Attributes:
        days: from the first row to the last.
        units: distinct ones, of all versions.
        control: the primary metric of units that the control's version answered, one value a unit.
    """

    days: float
    units: int
    requests: int
    control: Moments

    @property
    def units_per_day(self) -> float | None:
        """New units a day; None where less than an hour was seen, from which nothing follows for a day."""
        return self.units / self.days if self.days >= 1 / 24 else None


def seen_traffic(experiment: Experiment, data: Path, now: float) -> Traffic:
    """Reads partition after partition in bounded memory; of a ratio, no values are read.

    Raises:
        EmberlineError: a file is broken, or files changed each time they were read.
    """
    since_us = int(now * 1e6 - DAYS * _DAY_US)
    return read_rows(data, lambda: _seen(experiment, data, since_us))


def _seen(experiment: Experiment, data: Path, since_us: int) -> Traffic:
    first, last, units, requests, control = 0, 0, 0, 0, Moments()
    with duckdb.connect(":memory:", config={"memory_limit": _MEMORY}) as connection:
        for exposures, outcomes in _partitions(data):
            found = _rows(connection, experiment, exposures, outcomes, since_us)
            begun, ended, num_units, num_requests, moments = found
            if not num_units:
                continue
            first, last = (min(first or begun, begun), max(last, ended))
            units, requests, control = units + num_units, requests + num_requests, control + moments
    return Traffic((last - first) / _DAY_US, units, requests, control)


def _partitions(data: Path) -> Iterator[tuple[list[str], list[str]]]:
    for partition in sorted((data / "exposures").glob("part=*")):
        outcomes = sorted((data / "outcomes" / partition.name).glob("*.parquet"))
        yield [str(path) for path in sorted(partition.glob("*.parquet"))], [str(path) for path in outcomes]


def _rows(
    connection: duckdb.DuckDBPyConnection,
    experiment: Experiment,
    exposures: list[str],
    outcomes: list[str],
    since_us: int,
) -> tuple[int, int, int, int, Moments]:
    if not exposures:
        return 0, 0, 0, 0, Moments()
    metric, version = experiment.spec.primary, experiment.spec.control.version
    asked = {"files": exposures, "model": experiment.spec.model, "since": since_us}
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE seen AS SELECT unit, version, time_us, status, latency_ms, score,
            served_variant IS DISTINCT FROM variant AS fell_back FROM read_parquet($files)
            WHERE model = $model AND time_us >= $since AND NOT shadow""",
        asked,
    )
    counted = connection.execute("SELECT min(time_us), max(time_us), count(DISTINCT unit), count(*) FROM seen")
    begun, ended, units, requests = counted.fetchone() or (0, 0, 0, 0)
    source = _values(metric, outcomes)
    if source is None:
        return begun, ended, units, requests, Moments()
    given = {"version": version, **({"outcomes": outcomes, "since": since_us} if "$outcomes" in source else {})}
    query = f"""SELECT count(*), coalesce(avg(value), 0), coalesce(var_pop(value) * count(*), 0)
        FROM (SELECT unit, avg(value) AS value FROM ({source}) GROUP BY unit) WHERE value IS NOT NULL"""  # noqa: S608
    count, mean, m2 = connection.execute(query, given).fetchone() or (0, 0.0, 0.0)
    return begun, ended, units, requests, Moments(count, mean, m2)


def _values(metric: Metric, outcomes: list[str]) -> str | None:
    """SQL of (unit, value) of one metric; None where there can be none."""
    if metric.kind == "ratio":
        return None
    if metric.metric in EXPOSURE_METRICS:
        value = _thresholded(metric, EXPOSURE_METRICS[metric.metric])
        return f"SELECT unit, {value} AS value FROM seen WHERE version = $version"  # noqa: S608 - of the spec
    if not outcomes:
        return None
    value = _thresholded(metric, "value")
    first = ", ".join(
        f"arg_min({name}, (coalesce(received_us, time_us), time_us, metric, value)) AS {name}"
        for name in ("metric", "value", "time_us")
    )
    return f"""SELECT unit, {value} AS value FROM (
            SELECT unit, event_id, {first}
            FROM ({_NO_OUTCOMES} UNION ALL BY NAME SELECT * FROM read_parquet($outcomes, union_by_name = true))
            GROUP BY unit, event_id)
        WHERE metric = '{metric.metric}' AND time_us >= $since
            AND unit IN (SELECT unit FROM seen WHERE version = $version)"""  # noqa: S608 - names of the spec


def _thresholded(metric: Metric, value: str) -> str:
    return value if metric.above is None else f"CASE WHEN {value} > {metric.above!r} THEN 1e0 ELSE 0e0 END"
