"""What an experiment needs to come to a decision: units for its primary metric, pairs for its shadow."""

import math
from dataclasses import dataclass

from emberline.compare.metrics import MIN_UNITS, planned_units
from emberline.compare.sample_size import TooMany, pairs_to_certify, units_at_any_look, units_for_margin
from emberline.compare.traffic import Traffic
from emberline.errors import InvalidOption
from emberline.experiment import TOTAL_WEIGHT, Experiment, Spec

_OR_DATA = "--data takes it from recent traffic"
_LINEARISED = "of (y - ratio * x) / mean x, with the control's ratio and mean: y and x are a unit's two sums"


@dataclass(frozen=True)
class Plan:
    """Sizes of an experiment.

    Attributes:
        fixed_units: units of both variants for one look at the end.
        cap_units: units of both variants for looks at any time. Like `fixed_units` never so few that a variant could
            not show the `MIN_UNITS` that an interval needs.
        best_units: what `planned_units` should be: where a planned decision ends; for one at any time the fixed
            number, since a sequence that is narrowest there stops sooner than one narrowest at the cap, as likely.
        planned_units: what the experiment says now.
        pairs: for each shadow step with a limit, that limit and the pairs which certify it.
    """

    experiment: str
    metric: str
    margin: float
    share: float
    fixed_units: int
    cap_units: int
    best_units: int
    planned_units: int
    pairs: tuple[tuple[float, int], ...]


def plan_experiment(
    experiment: Experiment,
    *,
    baseline: float,
    difference: float,
    deviation: float | None,
    power: float,
    expected_disagreement: float,
) -> Plan:
    """Plans the last step of the ramp, which asks the primary, and each shadow before it.

    Raises:
        InvalidOption: the metric needs another option, or no number of units could decide.
    """
    spec = experiment.spec
    place = f"experiment {experiment.name}"
    if not 0 < power < 1:
        hint = "with 0.8, 4 of 5 such experiments end with a decision"
        raise InvalidOption("plan", "--power", power, "a probability between 0 and 1", hint=hint)
    if not math.isfinite(difference):
        hint = "0 asks what proves non-inferiority"
        raise InvalidOption(place, "--difference", difference, "a finite number", hint=hint)
    distance = abs(difference - spec.primary.margin)
    if not distance:
        hint = f"with margin {spec.primary.margin:g}, plan for another --difference, or give the experiment a margin"
        raise InvalidOption(place, "--difference", difference, "a difference other than the margin", hint=hint)
    variance = _variance(place, spec.primary.kind, baseline, deviation)
    if spec.primary.kind in {"rate", "exceedance"} and not 0 <= baseline + difference <= 1:
        required = f"a treatment's rate between 0 and 1 with --baseline {baseline:g}"
        hint = "rates are fractions: 0.02 is two points in a hundred"
        raise InvalidOption(place, "--difference", difference, required, hint=hint)
    share = (spec.ramp[-1].weight or 0) / TOTAL_WEIGHT
    alpha = spec.alpha
    # below it nothing is decided: each variant must have shown MIN_UNITS
    least = math.ceil(MIN_UNITS / min(share, 1 - share)) if 0 < share < 1 else 2 * MIN_UNITS
    fixed = max(least, units_for_margin(variance, distance, share, alpha=alpha, power=power))
    try:
        cap = max(least, units_at_any_look(variance, distance, share, tuned_to=fixed, alpha=alpha, power=power))
    except TooMany as error:
        required = f"a difference further from the margin {spec.primary.margin:g}, beside how much values spread,"
        raise InvalidOption(place, "--difference", difference, required, hint=str(error)) from error
    return Plan(
        experiment=experiment.name,
        metric=spec.primary.metric,
        margin=spec.primary.margin,
        share=share,
        fixed_units=fixed,
        cap_units=cap,
        best_units=cap if spec.primary.decision == "planned" else fixed,
        planned_units=planned_units(experiment),
        pairs=_pairs(place, spec, expected_disagreement),
    )


def _pairs(place: str, spec: Spec, expected: float) -> tuple[tuple[float, int], ...]:
    """The pairs that certify the limit of each shadow step that has one."""
    limits = [step.until.disagreement_below for step in spec.ramp if step.shadow and step.until.disagreement_below]
    if not 0 <= expected < 1:
        hint = "0.005 expects one pair of 200 to disagree"
        raise InvalidOption(place, "--disagreement", expected, "a share from 0 to below 1", hint=hint)
    for limit in limits:
        if expected >= limit:
            required = f"less than the shadow's limit {limit:g}"
            hint = "a version that disagrees as often as that is never let through"
            raise InvalidOption(place, "--disagreement", expected, required, hint=hint)
    try:
        return tuple((limit, pairs_to_certify(limit, expected, alpha=spec.alpha)) for limit in limits)
    except TooMany as error:
        required = "a share that pairs can tell from the shadow's limit"
        raise InvalidOption(place, "--disagreement", expected, required, hint=str(error)) from error


def from_traffic(
    experiment: Experiment, seen: Traffic, baseline: float | None, deviation: float | None
) -> tuple[float | None, float | None]:
    """Baseline and deviation: what was given, else what the control's units showed, if there were enough of them."""
    known = seen.control.count >= MIN_UNITS
    if experiment.spec.primary.kind == "mean":
        measured = math.sqrt(seen.control.variance) if known else None
        return baseline, measured if deviation is None else deviation
    if baseline is None and known and 0 < seen.control.mean < 1:
        return seen.control.mean, deviation
    return baseline, deviation


def _variance(place: str, kind: str, baseline: float, deviation: float | None) -> float:
    if kind in {"mean", "ratio"}:
        if deviation is None or not 0 < deviation < math.inf:
            required, hint = "the standard deviation of a unit's value", _OR_DATA
            if kind == "ratio":
                required, hint = "the standard deviation of a unit's linearised value", _LINEARISED
            raise InvalidOption(place, "--deviation", deviation, required, hint=hint)
        return deviation**2
    if deviation is not None:
        raise InvalidOption(
            place, "--deviation", deviation, f"nothing for a metric of kind {kind}", hint="use --baseline"
        )
    if not 0 < baseline < 1:
        raise InvalidOption(place, "--baseline", baseline, "a rate between 0 and 1", hint=_OR_DATA)
    return baseline * (1 - baseline)
