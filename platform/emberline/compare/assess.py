"""From an experiment and its observations to one verdict: pure, so that looking twice says the same.

Error rates: the primary is asked in the last step alone, at the experiment's alpha. Guardrails share alpha evenly over
all of them in all weighted steps (Bonferroni), shadow steps share it among themselves: so a version that is as good as
the control is stopped by a guardrail, ever, with probability at most alpha, however often one looks. Secondary metrics
and segments decide nothing; Holm's method shares one further alpha among all of them.
"""

from collections.abc import Sequence
from typing import Any

from emberline.compare.assess_shadow import assess_pairs, judge_shadow
from emberline.compare.assessment import ArmResult, Assessment, MetricResult, Verdict
from emberline.compare.metrics import MIN_UNITS, planned_units, results, secondary_results
from emberline.compare.observations import Observations
from emberline.compare.validity import objections, ratio_p, step_weights
from emberline.experiment import Experiment, RampStep, Segment


def assess(
    experiment: Experiment, seen: Observations, now: float, *, exploratory: Sequence[Segment] = ()
) -> Assessment:
    """Judges the step that `seen` was observed in.

    Args:
        now: Unix time; `max_wait` counts from the step's confirmation.
        exploratory: segments that were observed without having been declared; reported, with no claim.
    """
    window = experiment.window
    if window is None or experiment.upset:
        return _nothing_to_judge(experiment, now)
    step = experiment.spec.ramp[window.step]
    waited_s = max(0.0, (window.until or now) - window.since)
    against = tuple(objections(experiment, step, seen))
    metrics = () if step.shadow is not None else results(experiment, seen)
    secondary = () if step.shadow is not None else secondary_results(experiment, seen, exploratory)
    pairs = assess_pairs(experiment, step, seen) if step.shadow is not None else None
    verdict: Verdict = "invalid"
    advance, reasons = False, against
    if not against and pairs is not None:
        verdict, advance, reasons = judge_shadow(step, pairs, waited_s)
    elif not against:
        last = window.step == len(experiment.spec.ramp) - 1
        units = sum(seen.arm(name).units for name in step_weights(experiment, step))
        planned = planned_units(experiment)
        verdict, advance, reasons = _judge_weighted(step, metrics, units, waited_s, planned, last=last)
    return Assessment(
        experiment=experiment.name,
        verdict=verdict,
        reasons=reasons,
        advance=advance,
        phase=experiment.status.phase,
        step=window.step,
        **_where(experiment),
        config_version=window.config_version,
        at=now,
        waited_s=waited_s,
        arms=_arms(experiment, step, seen),
        metrics=metrics,
        secondary=secondary,
        pairs=pairs,
        sample_ratio_p=ratio_p(experiment, step, seen),
        crossed=seen.crossed,
    )


def _nothing_to_judge(experiment: Experiment, now: float) -> Assessment:
    status = experiment.status
    reason = "no step was judged"
    verdict: Verdict = "running"
    if experiment.upset:
        verdict, reason = "invalid", experiment.upset
    elif status.phase == "Invalid":
        verdict, reason = "invalid", status.reason
    elif status.phase == "Pending":
        reason = "the experiment has not begun"
    elif not experiment.terminal:
        reason = f"waiting for the routers to take configuration {experiment.config_version}"
    return Assessment(
        experiment=experiment.name,
        verdict=verdict,
        reasons=(reason,),
        phase=status.phase,
        **_where(experiment),
        at=now,
    )


def _where(experiment: Experiment) -> dict[str, Any]:
    """How far the experiment has come; `RolledBack` alone reads like harm, so the first words of its reason follow."""
    status, progress = experiment.status, experiment.progress
    if experiment.terminal and status.phase != "Shipped" and status.reason:
        progress += f" ({status.reason.split(';')[0]})"
    return {"progress": progress, "ended": experiment.terminal, "weights_text": experiment.weights_text}


Judgement = tuple[Verdict, bool, tuple[str, ...]]


def _judge_weighted(
    step: RampStep, metrics: tuple[MetricResult, ...], units: int, waited_s: float, planned: int, *, last: bool
) -> Judgement:
    primary, guardrails = metrics[0], metrics[1:]
    breached = tuple(_breach(result) for result in guardrails if result.side == "above")
    if breached:
        return "stop", False, breached
    missing = _missing(step, primary, guardrails, units, last=last)
    over = step.until.max_wait is not None and waited_s >= step.until.max_wait
    if last and (end := _decision(primary, missing, planned)) is not None:
        return end
    if last and primary.side == "open":
        missing = (_open(primary), *missing)
    elif not last and not missing and (over or step.until.min_units is not None or step.until.max_wait is None):
        return "running", True, (f"{units} units and no guardrail breached",)
    if over:
        return "inconclusive", False, (f"no decision within {step.until.max_wait:g} s", *missing)
    return "running", False, missing or (f"waiting until {step.until.max_wait:g} s have passed",)


def _decision(primary: MetricResult, missing: tuple[str, ...], planned: int) -> Judgement | None:
    """What the last step's primary decides; None while it is open."""
    if primary.side == "below":
        return "stop", False, (f"{_interval(primary)}: wholly below the margin {primary.limit:g}",)
    if primary.side == "above" and not missing:
        better = " and above 0: better than the control" if primary.limit < 0 < (primary.lower or 0) else ""
        return "ship", False, (f"{_interval(primary)}: wholly above the margin {primary.limit:g}{better}",)
    at_the_end = primary.control_units + primary.treatment_units >= planned
    if primary.method == "planned" and primary.side == "open" and at_the_end:
        fact = f"{_open(primary)} at the planned {planned} units"
        return "inconclusive", False, (fact, *missing)
    return None


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


def _open(primary: MetricResult) -> str:
    return f"{_interval(primary)}: contains the margin {primary.limit:g}, so nothing is decided"


def _breach(result: MetricResult) -> str:
    return f"{_interval(result)}: wholly above the allowed increase {result.limit:g}"
