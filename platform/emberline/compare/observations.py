"""What was seen in one ramp step, summed so that partitions (and machines) add up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from emberline.compare.joint import JointMoments
from emberline.compare.moments import Moments
from emberline.experiment import Metric


@dataclass(frozen=True)
class Arm:
    """One variant.

    Attributes:
        units: distinct units assigned to it, and to no other variant.
        requests: their requests, each once.
        fallbacks: requests that another variant answered because this one was dead.
        metrics: one value a unit, by `metric_key` (and `segment_key`).
        joint: of metrics with a covariate, and of ratios, both values of the units that have them.
    """

    units: int = 0
    requests: int = 0
    fallbacks: int = 0
    metrics: Mapping[str, Moments] = field(default_factory=dict)
    joint: Mapping[str, JointMoments] = field(default_factory=dict)

    def __add__(self, other: "Arm") -> "Arm":
        return Arm(
            self.units + other.units,
            self.requests + other.requests,
            self.fallbacks + other.fallbacks,
            {
                key: self.metrics.get(key, Moments()) + other.metrics.get(key, Moments())
                for key in {**self.metrics, **other.metrics}
            },
            {
                key: self.joint.get(key, JointMoments()) + other.joint.get(key, JointMoments())
                for key in {**self.joint, **other.joint}
            },
        )


@dataclass(frozen=True)
class Labels:
    """What labels said of the pairs that disagree.

    Attributes:
        labelled: pairs with any label.
        better, worse: only the treatment, only the control was right.
        maybe_better, maybe_worse: may yet become either, once they are labelled.
    """

    labelled: int = 0
    better: int = 0
    worse: int = 0
    maybe_better: int = 0
    maybe_worse: int = 0

    def __add__(self, other: "Labels") -> "Labels":
        return Labels(
            self.labelled + other.labelled,
            self.better + other.better,
            self.worse + other.worse,
            self.maybe_better + other.maybe_better,
            self.maybe_worse + other.maybe_worse,
        )


@dataclass(frozen=True)
class Observations:
    """All that an assessment knows of the traffic.

    Attributes:
        arms: by name of the variant; one that saw nothing may be absent.
        crossed: units seen in more than one variant; they count in none.
        pairs: requests answered by the control and, as a mirrored copy, by the treatment.
        disagreements: pairs with different labels; a copy that failed disagrees.
        noise_pairs: requests answered twice by the control.
        noise: of these, pairs with different labels.
        labels: what is known of the disagreements.
        routed: requests the routers counted by variant, where they are asked; else None.
    """

    arms: Mapping[str, Arm] = field(default_factory=dict)
    crossed: int = 0
    pairs: int = 0
    disagreements: int = 0
    routed: Mapping[str, int] | None = None
    noise_pairs: int = 0
    noise: int = 0
    labels: Labels = Labels()

    def __add__(self, other: "Observations") -> "Observations":
        return Observations(
            {name: self.arm(name) + other.arm(name) for name in {**self.arms, **other.arms}},
            self.crossed + other.crossed,
            self.pairs + other.pairs,
            self.disagreements + other.disagreements,
            self.routed or other.routed,
            self.noise_pairs + other.noise_pairs,
            self.noise + other.noise,
            self.labels + other.labels,
        )

    def arm(self, name: str) -> Arm:
        return self.arms.get(name, Arm())


def metric_key(metric: Metric) -> str:
    """What a metric is called in observations and reports: a threshold or a covariate makes it another metric."""
    name = metric.metric if metric.above is None else f"{metric.metric} > {metric.above:g}"
    if metric.per is not None:
        name = f"{name} / {metric.per}"
    if metric.winsorise is not None:
        name = "{} in [{:g}, {:g}]".format(name, *metric.winsorise)
    return name if metric.covariate is None else f"{name} given {metric.covariate.metric}"


def segment_key(metric: Metric, segment: str) -> str:
    return f"{metric_key(metric)}, {segment}"
