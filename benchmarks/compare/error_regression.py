"""A treatment that fails 20 % of its requests: units until traffic is rolled back, and seconds after the log shows it.

The theoretical sample is the smallest at which the guardrail's interval, at the true rates, lies above its limit, with
the fifty units an arm that any interval needs. The log shows it with the exposure at which the rows so far breach the
limit, found by replay; rolled back is when the status says so, by the controller's own clock.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import duckdb
from _router import Load, router
from _simulate import sample

from emberline import process
from emberline.compare.difference import difference_of
from emberline.experiment import Experiment, Metric, Status, load_experiment
from emberline.rollout.audit import read_audit

TARGET = "<= 1.2x the theoretical sample at the log, rolled back <= 2 s later; medians of the runs"
TRIALS = 6
FAILING, LIMIT, PLANNED, ALPHA = 0.2, 0.02, 5000, 0.05
ERROR = Metric(metric="error")
MIN_UNITS = 50
SPEC = {
    "guardrails": [{"metric": "error", "max_increase": LIMIT}],
    "ramp": [{"weight": 5000, "until": {"max_wait": "1h"}}],
    "primary": {"metric": "correct", "margin": -0.2},
    "planned_units": PLANNED,
    "alpha": ALPHA,
}


def trial(folder: Path, number: int) -> dict[str, Any]:
    with router(folder, fails=f"1.1={FAILING}") as running:
        name = f"regression-{number}"
        running.write(name, 0, **SPEC)
        (running.experiments / f"{name}.status.json").unlink()
        running.start()
        command = [sys.executable, "-m", "emberline.cli", "rollout", "--envoy-admin", running.paper["admin"]]
        controller = process.start(
            [*command, "--interval", "0.2s"], name="rollout", cwd=folder, log=folder / "rollout.log"
        )
        path = running.experiments / f"{name}.yaml"

        def status() -> Status:
            return load_experiment(path).status

        try:
            process.wait_until(lambda: status().since > 0, 30, "the ramp")
            with Load(running.port, 2, pause_s=0.02, fresh=True):
                process.wait_until(lambda: status().phase not in {"Pending", "Ramping"}, 120, "the verdict")
        finally:
            controller.stop()
        ended = load_experiment(path)
        judged = read_audit(running.experiments, name)[-1]["assessment"]
        running.stop()
        shown_at, shown_units = _shown(folder, ended)
    return {
        "phase": ended.status.phase,
        "units_judged": sum(arm["units"] for arm in judged["arms"]),
        "units_shown": shown_units,
        "theory": theory(),
        "seconds_after": round(ended.status.since - shown_at, 2),
    }


def breached(control: tuple[int, float], treatment: tuple[int, float]) -> bool:
    arms = [sample(errors, units) for units, errors in (control, treatment)]  # type: ignore[arg-type]
    interval = difference_of(ERROR, *arms).interval(alpha=ALPHA, planned_units=PLANNED)
    return interval.lower > LIMIT


def theory() -> int:
    """Units of both arms."""
    units = MIN_UNITS
    while not breached((units, 0.0), (units, FAILING * units)):
        units += 1
    return 2 * units


def _shown(folder: Path, ended: Experiment) -> tuple[float, int]:
    """Unix time and number of units at which the rows first breach the limit."""
    files = [str(path) for path in (folder / "data/exposures").glob("part=*/*.parquet")]
    window = ended.window
    assert window is not None
    query = """SELECT variant = 'int8', CAST(status >= 500 AS INT), (time_us + latency_ms * 1000) / 1e6 AS answered
        FROM read_parquet($1) WHERE config_version = $2 AND time_us >= $3 ORDER BY answered"""
    with duckdb.connect(":memory:") as connection:
        given = [files, window.config_version, int(window.since * 1e6)]
        rows = connection.execute(query, given).fetchall()
    counts, errors = [0, 0], [0, 0]
    for treated, failed, at in rows:
        counts[treated] += 1
        errors[treated] += failed
        if min(counts) >= MIN_UNITS and breached((counts[0], errors[0]), (counts[1], errors[1])):
            return at, sum(counts)
    raise AssertionError("the rows never breach the limit")


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = [trial["units_shown"] / trial["theory"] for trial in trials]
    ratio = round(statistics.median(ratios), 3)
    seconds = round(statistics.median(trial["seconds_after"] for trial in trials), 2)
    back = all(trial["phase"] == "RolledBack" for trial in trials)
    return {
        "runs": len(trials),
        "theory_units": trials[0]["theory"],
        "times_theory": ratio,
        "times_theory_judged": round(statistics.median(t["units_judged"] / t["theory"] for t in trials), 3),
        "seconds_after": seconds,
        "longest_s": max(trial["seconds_after"] for trial in trials),
        "reached": back and ratio <= 1.2 and seconds <= 2,
    }
