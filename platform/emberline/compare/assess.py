"""From an experiment and its observations to one verdict: pure, so that looking twice says the same.

Error rates: the primary is asked in the last step alone, at the experiment's alpha. Guardrails share alpha evenly over
all of them in all weighted steps (Bonferroni), shadow steps share it among themselves: so a version that is as good as
the control is stopped by a guardrail, ever, with probability at most alpha, however often one looks.
"""

import math

from emberline.compare.assessment import ArmResult, Assessment, MetricResult, PairsResult, Side, Verdict
from emberline.compare.confidence_sequence import Interval, difference_of_means
from emberline.compare.disagreement import share_of
from emberline.compare.margin import side_of
from emberline.compare.moments import Moments
from emberline.compare.observations import Observations, metric_key
from emberline.compare.share_difference import difference_of_shares
from emberline.compare.validity import SPEC_CHANGED, objections, ratio_p, spec_changed, step_weights
from emberline.experiment import Experiment, Guardrail, Metric, Primary, RampStep

MIN_UNITS = 50
"""Units an arm needs before an interval is believed: the sequence is an asymptotic one."""
DEFAULT_PLANNED_UNITS = 5000


def assess(experiment: Experiment, seen: Observations, now: float) -> Assessment:
    """Judges the step that `seen` was observed in.

    Args:
        now: Unix time; `max_wait` counts from the step's confirmation.
    """
    window = experiment.window
    if window is None or spec_changed(experiment):
        return _nothing_to_judge(experiment, now)
    step = experiment.spec.ramp[window.step]
    waited_s = max(0.0, (window.until or now) - window.since)
    against = tuple(objections(experiment, step, seen))
    metrics = () if step.shadow is not None else _metrics(experiment, seen)
    pairs = _pairs(experiment, step, seen) if step.shadow is not None else None
    verdict: Verdict = "invalid"
    advance, reasons = False, against
    if not against and pairs is not None:
        verdict, advance, reasons = _judge_shadow(step, pairs, waited_s)
    elif not against:
        last = window.step == len(experiment.spec.ramp) - 1
        units = sum(seen.arm(name).units for name in step_weights(experiment, step))
        verdict, advance, reasons = _judge_weighted(step, metrics, units, waited_s, last=last)
    return Assessment(
        experiment=experiment.name,
        verdict=verdict,
        reasons=reasons,
        advance=advance,
        phase=experiment.status.phase,
        step=window.step,
        config_version=window.config_version,
        at=now,
        waited_s=waited_s,
        arms=_arms(experiment, step, seen),
        metrics=metrics,
        pairs=pairs,
        sample_ratio_p=ratio_p(experiment, step, seen),
        crossed=seen.crossed,
    )


def _nothing_to_judge(experiment: Experiment, now: float) -> Assessment:
    status = experiment.status
    reason = "no step was judged"
    verdict: Verdict = "running"
    if spec_changed(experiment):
        verdict, reason = "invalid", SPEC_CHANGED
    elif status.phase == "Invalid":
        verdict, reason = "invalid", status.reason
    elif status.phase == "Pending":
        reason = "the experiment has not begun"
    elif not experiment.terminal:
        reason = f"waiting for the routers to take configuration {experiment.config_version}"
    return Assessment(experiment=experiment.name, verdict=verdict, reasons=(reason,), phase=status.phase, at=now)


Judgement = tuple[Verdict, bool, tuple[str, ...]]


def _judge_shadow(step: RampStep, pairs: PairsResult, waited_s: float) -> Judgement:
    rate = f"{pairs.disagreements} of {pairs.pairs} pairs disagree, at most {pairs.upper:.2%}"
    if pairs.side == "above":
        return "stop", False, (f"disagreement is at least {pairs.lower:.2%}, above {pairs.limit:.2%}", rate)
    over = step.until.max_wait is not None and waited_s >= step.until.max_wait
    units_wanted = step.until.min_units
    if pairs.limit is not None:
        done = pairs.side == "below"
        wanted = f"disagreement certified below {pairs.limit:.2%}"
    else:
        done = pairs.pairs >= max(MIN_UNITS, units_wanted or 0) and (over or step.until.max_wait is None)
        wanted = f"{max(MIN_UNITS, units_wanted or 0)} pairs" if not over else "pairs"
    if done:
        return "running", True, (rate,)
    if over:
        return "inconclusive", False, (f"no {wanted} within {step.until.max_wait:g} s", rate)
    return "running", False, (f"waiting for {wanted}", rate)


def _judge_weighted(
    step: RampStep, metrics: tuple[MetricResult, ...], units: int, waited_s: float, *, last: bool
) -> Judgement:
    primary, guardrails = metrics[0], metrics[1:]
    breached = tuple(_breach(result) for result in guardrails if result.side == "above")
    if breached:
        return "stop", False, breached
    missing = _missing(step, primary, guardrails, units, last=last)
    over = step.until.max_wait is not None and waited_s >= step.until.max_wait
    if last:
        if primary.side == "below":
            return "stop", False, (f"{_interval(primary)}: wholly below the margin {primary.limit:g}",)
        if primary.side == "above" and not missing:
            return "ship", False, (f"{_interval(primary)}: wholly above the margin {primary.limit:g}",)
        if primary.side == "open":
            missing = (f"{_interval(primary)}: holds the margin {primary.limit:g}", *missing)
    elif not missing and (over or step.until.min_units is not None or step.until.max_wait is None):
        return "running", True, (f"{units} units and no guardrail breached",)
    if over:
        return "inconclusive", False, (f"no decision within {step.until.max_wait:g} s", *missing)
    return "running", False, missing or (f"waiting until {step.until.max_wait:g} s have passed",)


def _missing(
    step: RampStep, primary: MetricResult, guardrails: tuple[MetricResult, ...], units: int, *, last: bool
) -> tuple[str, ...]:
    """What must still be seen before this step may end well."""
    missing = []
    if units < (step.until.min_units or 0):
        missing.append(f"{units} of {step.until.min_units} units seen")
    if units < 2 * MIN_UNITS:
        missing.append(f"{units} units seen; intervals need {MIN_UNITS} in each variant")
    missing += [
        f"{result.metric}: values of {result.control_units} and {result.treatment_units} units; {MIN_UNITS} each needed"
        for result in ((primary, *guardrails) if last else guardrails)
        if result.side == "waiting"
    ]
    return tuple(missing)


def _metrics(experiment: Experiment, seen: Observations) -> tuple[MetricResult, ...]:
    spec = experiment.spec
    weighted = sum(step.weight is not None for step in spec.ramp)
    guardrail_alpha = spec.alpha / max(1, len(spec.guardrails) * weighted)
    return (
        _result(experiment, spec.primary, seen, spec.alpha),
        *(_result(experiment, guardrail, seen, guardrail_alpha) for guardrail in spec.guardrails),
    )


def _result(experiment: Experiment, metric: Primary | Guardrail, seen: Observations, alpha: float) -> MetricResult:
    key = metric_key(metric)
    spec = experiment.spec
    control, treatment = (seen.arm(arm.name).metrics.get(key, Moments()) for arm in (spec.control, spec.treatment))
    limit = metric.margin if isinstance(metric, Primary) else metric.max_increase
    interval = difference(metric, control, treatment, alpha=alpha, planned_units=planned_units(experiment))
    known = min(control.count, treatment.count) >= MIN_UNITS and math.isfinite(interval.lower)
    side: Side = side_of(interval, limit) if known else "waiting"
    return MetricResult(
        metric=key,
        role="primary" if isinstance(metric, Primary) else "guardrail",
        control=control.mean if control.count else None,
        treatment=treatment.mean if treatment.count else None,
        control_units=control.count,
        treatment_units=treatment.count,
        difference=interval.estimate if control.count and treatment.count else None,
        lower=interval.lower if known else None,
        upper=interval.upper if known else None,
        limit=limit,
        alpha=alpha,
        side=side,
    )


def difference(metric: Metric, control: Moments, treatment: Moments, *, alpha: float, planned_units: int) -> Interval:
    """The confidence sequence that fits a metric's kind."""
    method = difference_of_means if metric.kind == "mean" else difference_of_shares
    return method(control, treatment, alpha=alpha, planned_units=planned_units)


def planned_units(experiment: Experiment) -> int:
    return experiment.spec.planned_units or DEFAULT_PLANNED_UNITS


def _pairs(experiment: Experiment, step: RampStep, seen: Observations) -> PairsResult:
    num_shadows = sum(one.shadow is not None for one in experiment.spec.ramp)
    interval = share_of(seen.disagreements, seen.pairs, alpha=experiment.spec.alpha / num_shadows)
    limit = step.until.disagreement_below
    side: Side = "waiting"
    if limit is not None and seen.pairs >= MIN_UNITS:
        side = side_of(interval, limit)
    return PairsResult(
        pairs=seen.pairs,
        disagreements=seen.disagreements,
        rate=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
        limit=limit,
        side=side,
    )


def _arms(experiment: Experiment, step: RampStep, seen: Observations) -> tuple[ArmResult, ...]:
    weights = step_weights(experiment, step)
    return tuple(
        ArmResult(
            variant=variant.name,
            version=variant.version,
            weight=weights[variant.name],
            units=seen.arm(variant.name).units,
            requests=seen.arm(variant.name).requests,
            fallbacks=seen.arm(variant.name).fallbacks,
        )
        for variant in experiment.spec.variants
    )


def _interval(result: MetricResult) -> str:
    return f"{result.metric}: difference {result.difference:+.4f} in [{result.lower:+.4f}, {result.upper:+.4f}]"


def _breach(result: MetricResult) -> str:
    return f"{_interval(result)}: wholly above the allowed increase {result.limit:g}"
