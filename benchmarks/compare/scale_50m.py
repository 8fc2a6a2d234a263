"""50 million exposures assessed with 10 million outcomes on two threads: CPU seconds and peak memory of the process.

Beside it, in the same trial, what DuckDB needs to read the ids alone and join them, partition by partition, without a
row put right: the least that any assessment costs here. The rows take minutes to make;
`EMBERLINE_ROWS=FOLDER` takes those that `python benchmarks/compare/_rows.py FOLDER 10000000 5` made.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from _rows import make

TARGET = "<= 40 CPU-s and <= 1 GB on 2 cores"
TRIALS = 3
_MEASURE = """
import json, resource, sys, time
from pathlib import Path
start = time.monotonic()
{work}
used, wall_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - start
from emberline.process import peak_bytes
print("", json.dumps({{"cpu_s": round(used.ru_utime + used.ru_stime, 1), "peak_mb": round(peak_bytes() / 2**20),
    "wall_s": round(wall_s, 1), "said": said}}), sep="\\n")
"""
_ASSESS = """
from _rows import experiment
from emberline.compare.assess import assess
from emberline.compare.observe import observe
judged = experiment()
seen = observe(judged, Path(sys.argv[1]), threads=2)
look = assess(judged, seen, 2000.0)
said = [look.arms[0].units + look.arms[1].units, look.arms[0].requests + look.arms[1].requests]
"""
_JOIN = """
import duckdb
said = [0, 0]
with duckdb.connect(":memory:", config={"memory_limit": "512MB", "threads": 2}) as connection:
    for part in sorted(Path(sys.argv[1], "exposures").glob("part=*")):
        rows, outcomes = str(part / "*.parquet"), str(Path(sys.argv[1], "outcomes", part.name, "*.parquet"))
        found = connection.execute("SELECT variant, count(*), count(DISTINCT e.request_id), avg(value) "
            "FROM read_parquet(?) e JOIN read_parquet(?) o USING (unit) GROUP BY variant", [rows, outcomes]).fetchall()
        said[1] += sum(row[1] for row in found)
"""


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the rows are the same
    rows = os.environ.get("EMBERLINE_ROWS")
    if rows is None:
        make(folder, 10_000_000, 5)
    data = rows or str(folder)
    return {"assess": _measured(_ASSESS, data), "plain_join": _measured(_JOIN, data), "load": os.getloadavg()[0]}


def _measured(work: str, data: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _MEASURE.format(work=work), data]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    # the last line: DuckDB shows its progress before it, where a program has no file
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    cpu_s = round(median(trial["assess"]["cpu_s"] for trial in trials), 1)
    peak_mb = max(trial["assess"]["peak_mb"] for trial in trials)
    units, requests = trials[0]["assess"]["said"]
    return {
        "cpu_s": cpu_s,
        "peak_mb": peak_mb,
        "plain_join_cpu_s": round(median(trial["plain_join"]["cpu_s"] for trial in trials), 1),
        "units": units,
        "requests": requests,
        "reached": cpu_s <= 40 and peak_mb <= 1000,
    }
