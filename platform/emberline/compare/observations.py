"""What was seen in one ramp step, summed so that partitions (and machines) add up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from emberline.compare.moments import Moments
from emberline.experiment import Metric


@dataclass(frozen=True)
class Arm:
    """One variant.

    Attributes:
        units: distinct units assigned to it, and to no other variant.
        requests: their requests, each once.
        fallbacks: requests that another variant answered because this one was dead.
        metrics: one value a unit, by `metric_key`.
    """

    units: int = 0
    requests: int = 0
    fallbacks: int = 0
    metrics: Mapping[str, Moments] = field(default_factory=dict)

    def __add__(self, other: "Arm") -> "Arm":
        return Arm(
            self.units + other.units,
            self.requests + other.requests,
            self.fallbacks + other.fallbacks,
            {
                key: self.metrics.get(key, Moments()) + other.metrics.get(key, Moments())
                for key in {**self.metrics, **other.metrics}
            },
        )


@dataclass(frozen=True)
class Observations:
    """All that an assessment knows of the traffic.

    Attributes:
        arms: by name of the variant; one that saw nothing may be absent.
        crossed: units seen in more than one variant; they count in none.
        pairs: requests answered by the control and, as a mirrored copy, by the treatment.
        disagreements: pairs with different labels; a copy that failed disagrees.
        routed: requests the routers counted by variant, where they are asked; else None.
    """

    arms: Mapping[str, Arm] = field(default_factory=dict)
    crossed: int = 0
    pairs: int = 0
    disagreements: int = 0
    routed: Mapping[str, int] | None = None

    def __add__(self, other: "Observations") -> "Observations":
        return Observations(
            {name: self.arm(name) + other.arm(name) for name in {**self.arms, **other.arms}},
            self.crossed + other.crossed,
            self.pairs + other.pairs,
            self.disagreements + other.disagreements,
            self.routed or other.routed,
        )

    def arm(self, name: str) -> Arm:
        return self.arms.get(name, Arm())


def metric_key(metric: Metric) -> str:
    """What a metric is called in observations and reports: a threshold makes it another metric."""
    return metric.metric if metric.above is None else f"{metric.metric} > {metric.above:g}"
