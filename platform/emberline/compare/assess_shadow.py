"""What a shadow's pairs of answers say, and whether its step ends. Pure.

A step that asks for several things advances when all of them are certain, and stops when one is certainly not so. Its
share of alpha is divided among them.
"""

from emberline.compare.assessment import AccuracyResult, NoiseResult, PairsResult, Side, Verdict
from emberline.compare.confidence_sequence import Interval
from emberline.compare.disagreement import share_of
from emberline.compare.margin import side_of
from emberline.compare.metrics import MIN_UNITS, planned_units
from emberline.compare.observations import Observations
from emberline.compare.paired import accuracy_difference
from emberline.experiment import Experiment, RampStep


def assess_pairs(experiment: Experiment, step: RampStep, seen: Observations) -> PairsResult:
    """Disagreement, beside the control's with itself where that was asked for; accuracy once there are labels."""
    asked = (step.until.disagreement_below, step.until.accuracy_above)
    num_shadows = sum(one.shadow is not None for one in experiment.spec.ramp)
    alpha = experiment.spec.alpha / num_shadows / max(1, sum(limit is not None for limit in asked))
    interval = share_of(seen.disagreements, seen.pairs, alpha=alpha)
    return PairsResult(
        pairs=seen.pairs,
        disagreements=seen.disagreements,
        rate=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
        limit=step.until.disagreement_below,
        side=_side(interval, step.until.disagreement_below, seen.pairs),
        noise=_noise(seen, alpha),
        accuracy=_accuracy(experiment, step, seen, alpha),
    )


def _side(interval: Interval, limit: float | None, pairs: int) -> Side:
    return "waiting" if limit is None or pairs < MIN_UNITS else side_of(interval, limit)


def _noise(seen: Observations, alpha: float) -> NoiseResult | None:
    if not seen.noise_pairs:
        return None
    interval = share_of(seen.noise, seen.noise_pairs, alpha=alpha)
    return NoiseResult(
        pairs=seen.noise_pairs,
        disagreements=seen.noise,
        rate=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
    )


def _accuracy(experiment: Experiment, step: RampStep, seen: Observations, alpha: float) -> AccuracyResult | None:
    """None without labels, unless all pairs agree: then no label can tell them apart."""
    labels, limit = seen.labels, step.until.accuracy_above
    if experiment.spec.agreement.by != "label" or experiment.spec.primary.kind != "rate":
        return None
    if not labels.labelled and (limit is None or not seen.pairs):
        return None
    interval = accuracy_difference(
        seen.pairs,
        labels.better,
        labels.worse,
        alpha=alpha,
        planned_units=planned_units(experiment),
        maybe_better=labels.maybe_better,
        maybe_worse=labels.maybe_worse,
    )
    return AccuracyResult(
        labelled=labels.labelled,
        unlabelled=max(labels.maybe_better, labels.maybe_worse),
        better=labels.better,
        worse=labels.worse,
        difference=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
        limit=limit,
        side=_side(interval, limit, seen.pairs),
    )


def judge_shadow(step: RampStep, pairs: PairsResult, waited_s: float) -> tuple[Verdict, bool, tuple[str, ...]]:
    """Verdict, whether the step is done, and why."""
    rates = _rates(pairs)
    over = step.until.max_wait is not None and waited_s >= step.until.max_wait
    if pairs.side == "above":
        fact = f"disagreement is at least {pairs.lower:.2%}, above {pairs.limit:.2%}"
        if pairs.noise is not None and pairs.limit is not None and pairs.noise.lower > pairs.limit:
            itself = f"the control disagrees with itself in at least {pairs.noise.lower:.2%}: no version can do better"
            return "inconclusive", False, (fact, itself, *rates)
        return "stop", False, (fact, *rates)
    accuracy = pairs.accuracy
    if accuracy is not None and accuracy.side == "below":
        fact = f"accuracy over the same requests is at most {accuracy.upper:+.4f}, below {accuracy.limit:+g}"
        return "stop", False, (fact, *rates)
    wanted = tuple(_wanted(step, pairs, over=over))
    if not wanted:
        return "running", True, rates
    if over:
        return "inconclusive", False, (f"no {' and '.join(wanted)} within {step.until.max_wait:g} s", *rates)
    return "running", False, (f"waiting for {' and '.join(wanted)}", *rates)


def _wanted(step: RampStep, pairs: PairsResult, *, over: bool) -> list[str]:
    """What must still be seen before the step is done."""
    until, wanted = step.until, []
    enough = max(MIN_UNITS, until.min_units or 0)
    if until.disagreement_below is not None and pairs.side != "below":
        wanted.append(f"disagreement certified below {until.disagreement_below:.2%}")
    if until.accuracy_above is not None and (pairs.accuracy is None or pairs.accuracy.side != "above"):
        wanted.append(f"accuracy certified above {until.accuracy_above:+g} of the control's")
    by_time = until.disagreement_below is None and until.accuracy_above is None
    if pairs.pairs < enough and (by_time or until.min_units is not None):
        wanted.append("pairs" if over else f"{enough} pairs")
    elif by_time and until.max_wait is not None and not over:
        wanted.append(f"the end of {until.max_wait:g} s")
    return wanted


def _rates(pairs: PairsResult) -> tuple[str, ...]:
    rates = [f"{pairs.disagreements} of {pairs.pairs} pairs disagree, at most {pairs.upper:.2%}"]
    if pairs.noise is not None:
        noise = pairs.noise
        rates.append(f"the control disagrees with itself in {noise.disagreements} of {noise.pairs} pairs")
    if pairs.accuracy is not None:
        found = pairs.accuracy
        rates.append(
            f"accuracy {found.difference:+.4f} in [{found.lower:+.4f}, {found.upper:+.4f}]: {found.better} better, "
            f"{found.worse} worse, {found.unlabelled} disagreements without a label"
        )
    return tuple(rates)
