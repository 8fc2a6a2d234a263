"""Each metric of a step as a result: both arms, their difference with its interval, the side of the limit it is on."""

import math
from collections.abc import Sequence

from emberline.compare.assessment import MetricResult, Side
from emberline.compare.difference import Difference, Sample, difference_of
from emberline.compare.holm import holm
from emberline.compare.joint import JointMoments
from emberline.compare.margin import side_of
from emberline.compare.moments import Moments
from emberline.compare.observations import Observations, metric_key, segment_key
from emberline.experiment import Experiment, Guardrail, Metric, Primary, Segment

MIN_UNITS = 50
"""Units an arm needs before an interval is believed: the sequence is an asymptotic one."""
DEFAULT_PLANNED_UNITS = 5000


def planned_units(experiment: Experiment) -> int:
    return experiment.spec.planned_units or DEFAULT_PLANNED_UNITS


def results(experiment: Experiment, seen: Observations) -> tuple[MetricResult, ...]:
    """The primary, then the guardrails."""
    spec = experiment.spec
    weighted = sum(step.weight is not None for step in spec.ramp)
    guardrail_alpha = spec.alpha / max(1, len(spec.guardrails) * weighted)
    return (
        _result(experiment, spec.primary, seen, spec.alpha),
        *(_result(experiment, guardrail, seen, guardrail_alpha) for guardrail in spec.guardrails),
    )


def secondary_results(
    experiment: Experiment, seen: Observations, exploratory: Sequence[Segment] = ()
) -> tuple[MetricResult, ...]:
    """Secondary metrics and the primary in declared segments, adjusted together; then exploratory segments."""
    spec = experiment.spec
    family = [_claim(experiment, metric, seen) for metric in spec.secondary]
    family += [_claim(experiment, spec.primary, seen, segment) for segment in spec.segments]
    adjusted = holm([1.0 if result.p is None else result.p for result in family])
    claims = [_adjusted(result, p) for result, p in zip(family, adjusted, strict=True)]
    looked_at = [_claim(experiment, spec.primary, seen, segment, exploratory=True) for segment in exploratory]
    return (*claims, *looked_at)


def _result(experiment: Experiment, metric: Primary | Guardrail, seen: Observations, alpha: float) -> MetricResult:
    limit = metric.margin if isinstance(metric, Primary) else metric.max_increase
    role = "primary" if isinstance(metric, Primary) else "guardrail"
    planned = isinstance(metric, Primary) and metric.decision == "planned"
    result, difference = _measured(experiment, metric, metric_key(metric), seen, alpha, planned=planned)
    if result.lower is None or result.upper is None:
        return result.model_copy(update={"role": role, "limit": limit})
    interval = difference.interval(alpha=alpha, planned_units=planned_units(experiment), planned=planned)
    side: Side = side_of(interval, limit)  # of the interval as it is: what is shown of it decides nothing
    return result.model_copy(update={"role": role, "limit": limit, "side": side})


def _claim(
    experiment: Experiment,
    metric: Metric,
    seen: Observations,
    segment: Segment | None = None,
    *,
    exploratory: bool = False,
) -> MetricResult:
    key = metric_key(metric) if segment is None else segment_key(metric, segment.name)
    alpha = experiment.spec.alpha
    result, difference = _measured(experiment, metric, key, seen, alpha, planned=False)
    known = result.side != "waiting"
    p = difference.p_value(alpha=alpha, planned_units=planned_units(experiment)) if known and not exploratory else None
    about = {
        "metric": metric_key(metric),
        "role": "secondary" if segment is None else "segment",
        "segment": segment and segment.name,
        "exploratory": exploratory,
        "p": p,
    }
    return result.model_copy(update=about)


def _adjusted(result: MetricResult, p: float) -> MetricResult:
    """With the claim that Holm's method allows, if any."""
    if result.p is None or result.difference is None:
        return result
    side: Side = "open" if p > result.alpha else "above" if result.difference > 0 else "below"
    return result.model_copy(update={"p_adjusted": p, "side": side})


def _measured(
    experiment: Experiment, metric: Metric, key: str, seen: Observations, alpha: float, *, planned: bool
) -> tuple[MetricResult, Difference]:
    """Both arms and their difference, `open` as to its side, or `waiting` for more units."""
    control, treatment = (_sample(seen, arm.name, key) for arm in (experiment.spec.control, experiment.spec.treatment))
    difference = difference_of(metric, control, treatment)
    interval = difference.interval(alpha=alpha, planned_units=planned_units(experiment), planned=planned)
    counts = control.values.count, treatment.values.count
    known = min(counts) >= MIN_UNITS and math.isfinite(interval.lower)
    shown = interval.within(-1.0, 1.0) if metric.kind in {"rate", "exceedance"} else interval
    result = MetricResult(
        metric=key,
        role="secondary",
        control=_finite(difference.control) if counts[0] else None,
        treatment=_finite(difference.treatment) if counts[1] else None,
        control_units=counts[0],
        treatment_units=counts[1],
        difference=_finite(interval.estimate) if all(counts) else None,
        lower=shown.lower if known else None,
        upper=shown.upper if known else None,
        limit=0.0,
        alpha=alpha,
        side="open" if known else "waiting",
        method="planned" if planned else "anytime",
        variance_ratio=difference.variance_ratio,
    )
    return result, difference


def _sample(seen: Observations, variant: str, key: str) -> Sample:
    arm = seen.arm(variant)
    return Sample(arm.metrics.get(key, Moments()), arm.joint.get(key, JointMoments()))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
