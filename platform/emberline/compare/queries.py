"""The SQL that turns rows into sums, in words that DuckDB and Spark both know: one assessment, two engines.

Statements read `exposures` and `outcomes`, of whole partitions or of everything, and build on one another by name. What
an engine says in its own way is the `key` of an id: a hash where that is narrower than the text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emberline.compare.observations import metric_key
from emberline.experiment import Agreement, Metric, Segment

Key = Callable[[str], str]
"""SQL of the key of an id's column."""

EXPOSURE_METRICS = {
    # an arm that is dead or slow must not look well because others answer for it or clients give up on it
    "error": "CASE WHEN status = 0 OR status >= 500 OR fell_back THEN 1e0 ELSE 0e0 END",
    "latency_ms": "latency_ms",
    "score": "score",
}
"""Metrics that exposures carry; any other name but `requests` is looked for among the outcomes."""

REQUESTS = "requests"
"""The number of a unit's requests, as the denominator of a ratio."""

COLUMNS = {"error": ("status",), "latency_ms": ("latency_ms",), "score": ("score",)}


@dataclass(frozen=True)
class Bounds:
    """Which exposures count: of one configuration, from `since_us` until before `until_us`.

    Attributes:
        variants: names, in the experiment's order: rows carry their number, and `len(variants)` for any other name.
    """

    experiment: str
    variants: tuple[str, ...]
    config_version: str
    since_us: int
    until_us: int

    @property
    def condition(self) -> str:
        return (
            f"experiment = '{self.experiment}' AND config_version = '{self.config_version}' "
            f"AND time_us >= {self.since_us} AND time_us < {self.until_us}"
        )

    @property
    def variant(self) -> str:
        """SQL of a variant's number: comparing numbers costs a fraction of comparing texts."""
        cases = " ".join(f"WHEN '{name}' THEN {number}" for number, name in enumerate(self.variants))
        return f"CASE variant {cases} ELSE {len(self.variants)} END"


def exposed(bounds: Bounds, columns: Sequence[str], key: Key, where: str = "TRUE") -> str:
    """Live rows, copies of one row included."""
    more = "".join(f", {column}" for column in columns)
    return f"""
    SELECT {key("request_id")} AS request, {key("unit")} AS unit,
        {bounds.variant} AS variant, served_variant IS DISTINCT FROM variant AS fell_back, time_us{more}
    FROM exposures WHERE {bounds.condition} AND NOT shadow AND {where}"""  # noqa: S608 - names and numbers of the spec


COPIES = "SELECT count(*), count(DISTINCT request) FROM exposed"
"""Rows, and distinct ones: where they are equal, nothing is there twice and nothing needs to be put right."""


def live_once(columns: Sequence[str]) -> str:
    """Rows of one key are copies of one row: any of them is the one."""
    more = "".join(f", any_value({column}) AS {column}" for column in columns)
    return f"""
    SELECT request, unit, variant, any_value(fell_back) AS fell_back, min(time_us) AS time_us{more}
    FROM exposed GROUP BY request, unit, variant"""  # noqa: S608 - same


def units(metrics: Sequence[Metric]) -> str:
    """One row a unit, with the sum and number of each exposure metric's values."""
    sums = "".join(
        f", sum({value}) AS {column}_sum, {_number(metric, value)} AS {column}_n"
        for metric in metrics
        for column, value in exposure_values(metric).items()
    )
    return f"""
    SELECT unit, min(variant) AS variant, min(variant) <> max(variant) AS crossed, min(time_us) AS first_us,
        count(*) AS requests, count(*) FILTER (WHERE fell_back) AS fallbacks{sums}
    FROM live GROUP BY unit"""  # noqa: S608 - same


COUNTS = """
SELECT variant, crossed, count(*), CAST(sum(requests) AS BIGINT), CAST(sum(fallbacks) AS BIGINT)
FROM units GROUP BY variant, crossed
"""


def reported(key: Key, where: str = "TRUE") -> str:
    """All outcomes, copies included. An event id is its unit's: two units may have the same one."""
    return f"""
    SELECT {key("unit || event_id")} AS event, {key("unit")} AS unit,
        CASE WHEN request_id IS NOT NULL THEN {key("request_id")} END AS request, metric, value, time_us,
        coalesce(received_us, time_us) AS received_us
    FROM outcomes WHERE {where}"""  # noqa: S608 - same


REPORTED_COPIES = "SELECT count(*), count(DISTINCT event) FROM reported"

REPORTED_ONCE = """(SELECT * FROM (
        SELECT *, row_number() OVER (PARTITION BY event ORDER BY received_us, time_us, metric, value) AS place
        FROM reported
    ) numbered WHERE place = 1) firsts"""
"""Of an event's rows the first that arrived counts; rows of earlier versions do not tell, and go by their own time."""


def asked_for(metrics: Sequence[str], until_us: int, source: str) -> str:
    """Outcomes of some metrics, of a source in which each event is once: whichever metric it was first told of."""
    names = ", ".join(f"'{name}'" for name in metrics)
    return f"""
    SELECT event, unit, request, metric, value, time_us
    FROM {source} WHERE metric IN ({names}) AND time_us < {until_us}"""  # noqa: S608 - same


def belonging(unit_hint: str = "", request_hint: str = "") -> str:
    """Outcomes with the unit they belong to: those of a unit from its first exposure on, those of a request to it.

    Args:
        unit_hint, request_hint: how an engine that takes advice shall join.
    """
    return f"""
    SELECT {unit_hint} o.unit AS unit, o.metric AS metric, o.value AS value FROM once o JOIN units u ON o.unit = u.unit
    WHERE o.request IS NULL AND o.time_us >= u.first_us
    UNION ALL
    SELECT {request_hint} o.unit AS unit, o.metric AS metric, o.value AS value FROM once o JOIN live l
        ON o.request = l.request AND o.unit = l.unit"""  # noqa: S608 - hints of the engine


def resulted(metrics: Sequence[Metric]) -> str:
    """One row a unit, with the sum and number of each outcome metric's values."""
    columns = {column: value for metric in metrics for column, value in outcome_values(metric).items()}
    sums = "".join(
        f", sum({value}) FILTER (WHERE metric = '{name}') AS {column}_sum"
        f", count(*) FILTER (WHERE metric = '{name}') AS {column}_n"
        for column, (name, value) in columns.items()
    )
    return f"SELECT unit{sums} FROM belonging GROUP BY unit"  # noqa: S608 - same


def known_before(metrics: Sequence[Metric], segments: Sequence[Segment], began_us: int) -> str:
    """One row a unit, with what was reported of it before the experiment began."""
    means = [
        f", avg(value) FILTER (WHERE metric = '{metric.covariate.metric}' "
        f"AND time_us >= {began_us - int(metric.covariate.days * 86_400e6)}) AS {column_of(metric)}_x"
        for metric in metrics
        if metric.covariate is not None
    ]
    means += [
        f", avg(value) FILTER (WHERE metric = '{segment.metric}') AS s{index}" for index, segment in enumerate(segments)
    ]
    return f"SELECT unit{''.join(means)} FROM once WHERE time_us < {began_us} GROUP BY unit"  # noqa: S608 - same


def unit_values(metrics: Sequence[Metric], segments: Sequence[Segment]) -> str:
    """One row a unit that was seen in one variant alone, with all that is known of it."""
    resulted = [f", r.{c}_sum, r.{c}_n" for metric in metrics for c in outcome_values(metric)]
    before = [f", b.{column_of(metric)}_x" for metric in metrics if metric.covariate is not None]
    before += [f", b.s{index}" for index in range(len(segments))]
    joins = "LEFT JOIN resulted r ON u.unit = r.unit " if resulted else ""
    joins += "LEFT JOIN known_before b ON u.unit = b.unit " if before else ""
    return f"SELECT u.*{''.join((*resulted, *before))} FROM units u {joins}WHERE NOT u.crossed"  # noqa: S608 - same


def moments(metric: Metric, segment: tuple[int, Segment] | None) -> str:
    """Rows of (variant; number, mean, squared deviations of y; the same of y and x over units with x; cross)."""
    y, x = value_of(metric)
    inside = "TRUE"
    if segment is not None:
        index, bounded = segment
        inside = f"s{index} IS NOT NULL"
        inside += "" if bounded.above is None else f" AND s{index} > {bounded.above!r}"
        inside += "" if bounded.at_most is None else f" AND s{index} <= {bounded.at_most!r}"
    both = "FILTER (WHERE x IS NOT NULL)"
    return f"""
    SELECT variant, count(*), avg(y), var_pop(y) * count(*), count(x), avg(y) {both}, var_pop(y) {both} * count(x),
        avg(x), var_pop(x) * count(x), covar_pop(y, x) * count(x)
    FROM (SELECT variant, CAST({y} AS DOUBLE) AS y, CAST({x} AS DOUBLE) AS x FROM unit_values WHERE {inside}) chosen
    WHERE y IS NOT NULL GROUP BY variant"""  # noqa: S608 - same


def value_of(metric: Metric) -> tuple[str, str]:
    """SQL of a unit's y and x: its mean and covariate, or a ratio's two sums."""
    column = column_of(metric)
    if metric.kind == "ratio":
        per = f"{column}_per_sum" if metric.per != REQUESTS else REQUESTS
        neither = f"{column}_sum IS NULL AND {per} IS NULL"
        y, x = (f"CASE WHEN NOT ({neither}) THEN coalesce({sums}, 0) END" for sums in (f"{column}_sum", per))
        return y, x
    mean = f"CASE WHEN {column}_n > 0 THEN {column}_sum / {column}_n END"
    if metric.winsorise is not None:
        low, high = metric.winsorise
        mean = f"CASE WHEN {column}_n > 0 THEN least(greatest({column}_sum / {column}_n, {low!r}), {high!r}) END"
    return mean, f"{column}_x" if metric.covariate is not None else "NULL"


def exposure_values(metric: Metric) -> dict[str, str]:
    """Columns of `units` that the metric needs: name, and SQL of one request's value."""
    return {
        column: _thresholded(metric, EXPOSURE_METRICS[name])
        for column, name in _sources(metric).items()
        if name in EXPOSURE_METRICS
    }


def outcome_values(metric: Metric) -> dict[str, tuple[str, str]]:
    """Columns of `resulted` that the metric needs: name, the outcome's metric, and SQL of one outcome's value."""
    return {
        column: (name, _thresholded(metric, "value"))
        for column, name in _sources(metric).items()
        if name not in EXPOSURE_METRICS and name != REQUESTS
    }


def _number(metric: Metric, value: str) -> str:
    return "count(*)" if metric.metric == "error" else f"count({value})"  # every request has a status


def _sources(metric: Metric) -> dict[str, str]:
    sources = {column_of(metric): metric.metric}
    return sources if metric.per is None else {**sources, f"{column_of(metric)}_per": metric.per}


def _thresholded(metric: Metric, value: str) -> str:
    if metric.above is None:
        return value
    return f"CASE WHEN {value} IS NULL THEN NULL WHEN {value} > {metric.above!r} THEN 1e0 ELSE 0e0 END"


def column_of(metric: Metric) -> str:
    """A name for the metric's columns that SQL takes."""
    return "m_" + "".join(letter if letter.isalnum() else "_" for letter in metric_key(metric))


def copied(bounds: Bounds, key: Key, where: str = "TRUE") -> str:
    """Answers to mirrored copies, each once."""
    return f"""
    SELECT {key("request_id")} AS request, {key("unit")} AS unit, {bounds.variant} AS variant,
        any_value(label) AS label, any_value(score) AS score
    FROM exposures WHERE {bounds.condition} AND shadow AND {where} GROUP BY request_id, unit, variant"""  # noqa: S608 - same


def pairs(agreement: Agreement) -> str:
    """Two answers to one request: the treatment's or, to know the noise, the control's own second one."""
    known, differ = "l.label IS NOT NULL", "c.label IS DISTINCT FROM l.label"
    if agreement.by == "score":
        known = "l.score IS NOT NULL"
        differ = f"(c.score IS NULL OR abs(c.score - l.score) > {agreement.within!r})"
    return f"""
    SELECT l.request AS request, l.unit AS unit, c.variant = l.variant AS noise, {differ} AS differ,
        c.label IS NULL AS failed
    FROM live l JOIN copied c ON l.request = c.request AND l.unit = c.unit
    WHERE l.status = 200 AND {known}"""  # noqa: S608 - same


PAIRS = "SELECT noise, count(*), count(*) FILTER (WHERE differ) FROM pairs GROUP BY noise"


def labelled(metric: str) -> str:
    """Disagreements with what is known of them: whether the live answer was right, and whether the copy was."""
    return f"""
    SELECT p.request, max(CASE WHEN o.metric = '{metric}' THEN o.value END) AS live_right,
        CASE WHEN bool_or(p.failed) THEN 0 ELSE max(CASE WHEN o.metric = 'shadow_{metric}' THEN o.value END) END
            AS copy_right, count(o.metric) AS labels
    FROM pairs p LEFT JOIN once o ON o.request = p.request AND o.unit = p.unit
    WHERE p.differ AND NOT p.noise GROUP BY p.request"""  # noqa: S608 - same


LABELS = """
SELECT count(*) FILTER (WHERE labels > 0),
    count(*) FILTER (WHERE copy_right = 1 AND coalesce(live_right, 0) <> 1),
    count(*) FILTER (WHERE live_right = 1 AND coalesce(copy_right, 0) <> 1),
    count(*) FILTER (WHERE copy_right IS NULL AND coalesce(live_right, 0) <> 1),
    count(*) FILTER (WHERE live_right IS NULL AND coalesce(copy_right, 0) <> 1)
FROM labelled
"""
