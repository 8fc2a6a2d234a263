"""Exposures and outcomes by the million, partitioned as the router leaves them, and an experiment that they belong to.

python benchmarks/compare/_rows.py FOLDER UNITS REQUESTS
"""

import os
import sys
from pathlib import Path

import duckdb

from emberline.experiment import Experiment, parse_experiment
from emberline.exposure import NUM_PARTITIONS

CONFIG_VERSION = "CV"
_SPEC = {
    "model": "digits",
    "variants": [{"name": "int8", "version": "1.1"}, {"name": "fp32", "version": "1.0", "control": True}],
    "primary": {"metric": "correct", "margin": -0.05},
    "guardrails": [
        {"metric": "error", "max_increase": 0.02},
        {"metric": "latency_ms", "kind": "exceedance", "above": 50, "max_increase": 0.05},
    ],
    "ramp": [{"weight": 5000}],
}


def experiment() -> Experiment:
    """One whose window is that of the rows."""
    window = {"config_version": CONFIG_VERSION, "step": 0, "since": 1000.0}
    document = {
        "apiVersion": "emberline.dev/v1",
        "kind": "Experiment",
        "metadata": {"name": "trial"},
        "spec": _SPEC,
        "status": {"phase": "Shipped", "judged": window},
    }
    return parse_experiment(document, Path("trial.yaml"))


def make(folder: Path, units: int, requests: int) -> None:
    """Half of the outcomes are of a request, half of a unit; one a unit."""
    with duckdb.connect(":memory:", config={"memory_limit": "3GB", "threads": os.cpu_count() or 1}) as connection:
        for part in range(NUM_PARTITIONS):
            _make_partition(connection, folder, part, units // NUM_PARTITIONS, requests)


def _make_partition(connection: duckdb.DuckDBPyConnection, folder: Path, part: int, units: int, requests: int) -> None:
    for kind in ("exposures", "outcomes"):
        (folder / kind / f"part={part:02d}").mkdir(parents=True)
    connection.execute(f"""CREATE OR REPLACE TEMP TABLE units AS
        SELECT substr(h, 1, 7) || '{part:x}' || substr(h, 9) AS unit, i,
            CASE WHEN i % 2 = 0 THEN 'int8' ELSE 'fp32' END AS v
        FROM (SELECT md5(i::VARCHAR || 'u{part}') AS h, i FROM range({units}) numbers(i))""")
    connection.execute(f"""COPY (SELECT 1001000000 + (j * {units} + i) * 10 AS time_us, 'trial' AS experiment,
            '{CONFIG_VERSION}' AS config_version, unit, md5(unit || j::VARCHAR) AS request_id, 'digits' AS model,
            v AS variant, v AS served_variant, '1.0' AS version, false AS shadow,
            (CASE WHEN hash(unit, j) % 200 = 0 THEN 500 ELSE 200 END)::SMALLINT AS status,
            ((hash(unit, j, 1) % 10000) / 100.0)::DOUBLE AS latency_ms, (hash(unit, j, 2) % 10)::VARCHAR AS label,
            ((hash(unit, j, 3) % 1000) / 1000.0)::DOUBLE AS score
        FROM units, range({requests}) times(j) ORDER BY j, i)
        TO '{folder}/exposures/part={part:02d}/a.parquet' (COMPRESSION zstd)""")
    connection.execute(f"""COPY (SELECT 900000000000 + i AS time_us, 'e' || md5(unit) AS event_id, unit,
            CASE WHEN i % 2 = 0 THEN md5(unit || '1') END AS request_id, 'correct' AS metric,
            (hash(unit, 5) % 10 > 0)::DOUBLE AS value FROM units ORDER BY hash(unit))
        TO '{folder}/outcomes/part={part:02d}/a.parquet' (COMPRESSION zstd)""")


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
