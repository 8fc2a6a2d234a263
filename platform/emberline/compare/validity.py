"""What makes a comparison worthless whatever its numbers say: invalid, never a reason to stop a version."""

from collections.abc import Iterator

from emberline.compare.moments import Moments
from emberline.compare.observations import Observations, metric_key
from emberline.compare.sample_ratio import sample_ratio_p
from emberline.experiment import TOTAL_WEIGHT, Experiment, RampStep

SAMPLE_RATIO_ALPHA = 0.01
_MISSING_SHARE = 0.01
_ROUNDING = 1e-6  # of sums
_IN_FLIGHT = 200  # requests that are counted but may not be logged yet


def step_weights(experiment: Experiment, step: RampStep) -> dict[str, int]:
    """Weights by variant, treatment first; a shadow step sends everybody to the control."""
    treated = step.weight or 0
    return {experiment.spec.treatment.name: treated, experiment.spec.control.name: TOTAL_WEIGHT - treated}


def ratio_p(experiment: Experiment, step: RampStep, seen: Observations) -> float | None:
    """The sample-ratio test's p-value; None in a step with one arm."""
    weights = step_weights(experiment, step)
    if step.weight is None:
        return None
    shares = [weight / TOTAL_WEIGHT for weight in weights.values()]
    return sample_ratio_p([seen.arm(name).units for name in weights], shares)


def objections(experiment: Experiment, step: RampStep, seen: Observations) -> Iterator[str]:
    """One sentence for each thing that makes the observations worthless."""
    weights = step_weights(experiment, step)
    for name in sorted(set(seen.arms) - set(weights)):
        yield f"{seen.arm(name).units} units were assigned to {name!r}, a variant that the experiment does not have"
    if seen.crossed:
        yield f"{seen.crossed} units were seen in both variants under one configuration"
    for name, weight in weights.items():
        if weight == 0 and seen.arm(name).units:
            yield f"{seen.arm(name).units} units were assigned to {name}, whose weight is 0"
    yield from _no_rates(experiment, seen)
    p = ratio_p(experiment, step, seen)
    if p is not None and p < SAMPLE_RATIO_ALPHA:
        counts = ", ".join(f"{seen.arm(name).units} {name}" for name in weights)
        promised = ":".join(str(weight) for weight in weights.values())
        yield f"sample-ratio mismatch: {counts} where {promised} was promised (p = {p:.2g})"
    for name, routed in (seen.routed or {}).items():
        missing = routed - seen.arm(name).requests
        if missing > _IN_FLIGHT and missing > _MISSING_SHARE * routed:
            yield f"{missing} of {routed} requests routed to {name} left no exposure"


def _no_rates(experiment: Experiment, seen: Observations) -> Iterator[str]:
    """Metrics declared as rates whose values cannot all lie between 0 and 1: their intervals would mean nothing."""
    spec = experiment.spec
    for metric in (spec.primary, *spec.guardrails, *spec.secondary):
        for name, arm in seen.arms.items():
            found = arm.metrics.get(metric_key(metric))
            if metric.kind == "rate" and found is not None and not may_be_a_rate(found):
                yield (
                    f"{metric.metric} is of kind: rate, and its values in {name} are not all from 0 to 1 "
                    f"(mean {found.mean:.4g}); kind: mean takes any values"
                )


def may_be_a_rate(values: Moments) -> bool:
    """Whether values from 0 to 1 can have these moments: none spread wider than 0s and 1s of the same mean.

    Source: Bhatia & Davis, "A Better Bound on the Variance", The American Mathematical Monthly 107 (2000).
    """
    widest = values.count * values.mean * (1 - values.mean)
    return 0 <= values.mean <= 1 and values.m2 <= widest * (1 + _ROUNDING) + _ROUNDING
