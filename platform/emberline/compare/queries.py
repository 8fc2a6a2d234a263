"""The SQL that turns one partition's rows into sums: every statement works on one partition alone."""

from collections.abc import Sequence

from emberline.compare.observations import metric_key
from emberline.experiment import Metric

EXPOSURE_METRICS = {
    # an arm that is dead or slow must not look well because others answer for it or clients give up on it
    "error": "CASE WHEN status = 0 OR status >= 500 OR served_variant IS DISTINCT FROM variant THEN 1.0 ELSE 0.0 END",
    "latency_ms": "latency_ms",
    "score": "score",
}
"""Metrics that exposures carry; any other name is looked for among the outcomes."""

EXPOSED = """
CREATE OR REPLACE TEMP TABLE exposed AS
SELECT request_id, any_value(unit) AS unit, shadow, variant, any_value(served_variant) AS served_variant,
    any_value(status) AS status, any_value(latency_ms) AS latency_ms, any_value(label) AS label,
    any_value(score) AS score, min(time_us) AS time_us  -- rows of one key are copies of one row: any is the one
FROM read_parquet($files)
WHERE experiment = $experiment AND config_version = $config_version AND time_us >= $since_us AND time_us < $until_us
GROUP BY request_id, shadow, variant
"""

UNITS = """
CREATE OR REPLACE TEMP TABLE units AS
SELECT unit, min(variant) AS variant, count(DISTINCT variant) > 1 AS crossed, min(time_us) AS first_us,
    count(*) AS requests, count(*) FILTER (WHERE served_variant IS DISTINCT FROM variant) AS fallbacks
FROM exposed WHERE NOT shadow GROUP BY unit
"""

COUNTS = """
SELECT variant, crossed, count(*), sum(requests)::BIGINT, sum(fallbacks)::BIGINT FROM units GROUP BY ALL
"""

PAIRS = """
SELECT count(*), count(*) FILTER (WHERE copy.label IS DISTINCT FROM live.label)
FROM exposed live JOIN exposed copy ON live.request_id = copy.request_id
WHERE NOT live.shadow AND copy.shadow AND live.variant <> copy.variant AND live.status = 200 AND live.label IS NOT NULL
"""

NO_OUTCOMES = "CREATE OR REPLACE TEMP TABLE resulted (unit VARCHAR, metric VARCHAR, value DOUBLE)"

OUTCOMES = """
CREATE OR REPLACE TEMP TABLE resulted AS
WITH once AS (
    SELECT DISTINCT ON (event_id) unit, request_id, metric, value, time_us
    FROM read_parquet($files) WHERE list_contains($metrics, metric) AND time_us < $until_us
    ORDER BY event_id, time_us
)
SELECT units.unit, once.metric, once.value
FROM once JOIN units ON once.unit = units.unit
    LEFT JOIN (SELECT DISTINCT request_id, unit FROM exposed WHERE NOT shadow) asked
        ON once.request_id = asked.request_id AND once.unit = asked.unit
WHERE CASE WHEN once.request_id IS NULL THEN once.time_us >= units.first_us ELSE asked.request_id IS NOT NULL END
"""


def moments(metrics: Sequence[Metric]) -> str:
    """Per variant and metric: number of units, sum of their values, squared deviations; a unit's value is its mean.

    Rows are (variant, key, count, sum, m2).
    """
    return "\nUNION ALL\n".join(_moments_of(metric) for metric in metrics)


def _moments_of(metric: Metric) -> str:
    if metric.metric in EXPOSURE_METRICS:
        column, rows = EXPOSURE_METRICS[metric.metric], "exposed WHERE NOT shadow"
    else:
        column, rows = "value", f"resulted WHERE metric = '{metric.metric}'"
    value = column if metric.above is None else f"CASE WHEN {column} > {metric.above!r} THEN 1.0 ELSE 0.0 END"
    present = f"({column}) IS NOT NULL"
    return f"""
    SELECT variant, '{metric_key(metric)}', count(*), sum(value), coalesce(var_pop(value) * count(*), 0)
    FROM (SELECT unit, avg({value}) AS value FROM {rows} AND {present} GROUP BY unit) JOIN units USING (unit)
    WHERE NOT crossed GROUP BY variant"""  # noqa: S608 - names are [a-z0-9_] by the experiment's model, numbers floats
