"""Exposures and outcomes of one ramp step, read partition after partition in bounded memory.

Rows of one unit meet in one partition, so each partition is joined alone and the sums add up. Rows that are there twice
(a shipper that was killed between writing and noting it) count once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from emberline.compare import queries
from emberline.compare.moments import Moments
from emberline.compare.observations import Arm, Observations, metric_key
from emberline.errors import EmberlineError
from emberline.experiment import Experiment, Metric, Window

MEMORY_LIMIT = "512MB"
BATCH_BYTES = 8 << 20  # of compressed Parquet; some ten times that in memory
_FOREVER_US = 1 << 62


def observe(experiment: Experiment, data: Path, *, until: float | None = None, threads: int = 2) -> Observations:
    """Sums of the step that the experiment is in, or of the one it was judged on; nothing seen is no error.

    Args:
        data: folder of `exposures/` and `outcomes/`.
        until: Unix time; later rows do not count.

    Raises:
        EmberlineError: a file is broken, or went away while it was read.
    """
    window = experiment.window
    if window is None:
        return Observations()
    try:
        with duckdb.connect(":memory:", config={"memory_limit": MEMORY_LIMIT, "threads": threads}) as connection:
            found = Observations()
            for exposures, outcomes in _batches(data):
                found += _observe_batch(
                    connection, experiment, window, exposures=exposures, outcomes=outcomes, until=until
                )
            return found
    except (duckdb.Error, FileNotFoundError) as error:
        hint = "a file that retention removed meanwhile is gone at the next look; a broken one names itself above"
        raise EmberlineError(f"rows cannot be read: {error}", place=data, hint=hint) from error


def _batches(data: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Files of exposures and outcomes, whole partitions at a time, as many together as `BATCH_BYTES` allow.

    Young experiments have many small files: one query over all of them costs a tenth of one a partition.
    """
    exposures: list[Path] = []
    outcomes: list[Path] = []
    for partition in sorted((data / "exposures").glob("part=*")):
        exposures += sorted(partition.glob("*.parquet"))
        outcomes += sorted((data / "outcomes" / partition.name).glob("*.parquet"))
        if sum(path.stat().st_size for path in (*exposures, *outcomes)) > BATCH_BYTES:
            yield [str(path) for path in exposures], [str(path) for path in outcomes]
            exposures, outcomes = [], []
    if exposures:
        yield [str(path) for path in exposures], [str(path) for path in outcomes]


def _observe_batch(
    connection: duckdb.DuckDBPyConnection,
    experiment: Experiment,
    window: Window,
    *,
    exposures: Sequence[str],
    outcomes: Sequence[str],
    until: float | None,
) -> Observations:
    """Sums of some whole partitions.

    Only exposures stop counting at the window's end: labels that arrive after the verdict belong to requests before it.
    """
    metrics = metrics_of(experiment)
    outcomes_until_us = _microseconds(until)
    exposures_until_us = min(outcomes_until_us, _microseconds(window.until))
    connection.execute(
        queries.EXPOSED,
        {
            "files": exposures,
            "experiment": experiment.name,
            "config_version": window.config_version,
            "since_us": _microseconds(window.since),
            "until_us": exposures_until_us,
        },
    )
    connection.execute(queries.UNITS)
    wanted = sorted({metric.metric for metric in metrics} - set(queries.EXPOSURE_METRICS))
    if outcomes and wanted:
        named = {"files": outcomes, "metrics": wanted, "until_us": outcomes_until_us}
        connection.execute(queries.OUTCOMES, named)
    else:
        connection.execute(queries.NO_OUTCOMES)
    return _sums(
        connection.execute(queries.COUNTS).fetchall(),
        connection.execute(queries.moments(metrics)).fetchall(),
        connection.execute(queries.PAIRS).fetchall()[0],
    )


def metrics_of(experiment: Experiment) -> tuple[Metric, ...]:
    """The experiment's metrics, each once."""
    distinct = {metric_key(metric): metric for metric in (experiment.spec.primary, *experiment.spec.guardrails)}
    return tuple(distinct.values())


def _sums(counts: list[Any], moments: list[Any], pairs: tuple[int, int]) -> Observations:
    """Rows of `COUNTS`, `moments()` and `PAIRS` as observations."""
    values: dict[str, dict[str, Moments]] = {}
    for variant, key, count, total, m2 in moments:
        values.setdefault(variant, {})[key] = Moments.of(count, total, m2)
    arms = {
        variant: Arm(units, requests, fallbacks, values.get(variant, {}))
        for variant, crossed, units, requests, fallbacks in counts
        if not crossed
    }
    return Observations(arms, sum(row[2] for row in counts if row[1]), *pairs)


def _microseconds(time: float | None) -> int:
    return _FOREVER_US if time is None else int(time * 1e6)
