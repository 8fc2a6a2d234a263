"""What is measured of each unit."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emberline.experiment.declared import Declared
from emberline.recipe import Name

MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Covariate(Declared):
    """What was known of a unit before the experiment began; takes the noise that it explains out of a metric.

    Attributes:
        metric: name of outcomes; a unit's covariate is their mean.
        days: how far back before the experiment's first step outcomes count.
    """

    metric: MetricName
    days: Annotated[float, Field(gt=0)] = 28.0


class Metric(Declared):
    """A metric: `correct` and the like come from outcomes; `error` and `latency_ms` from exposures.

    Attributes:
        kind: `rate` of 0/1 values, `mean` of values, `exceedance`: the share above `above`, `ratio`: the sum over all
            units divided by the sum of `per`.
        per: denominator of a ratio: a metric, or `requests`.
        winsorise: bounds that a unit's value is drawn in to, lowest and highest. They are declared and not taken from
            the data, since a bound that moves would change what was already looked at.
    """

    metric: MetricName
    kind: Literal["rate", "mean", "exceedance", "ratio"] = "rate"
    above: float | None = None
    per: MetricName | None = None
    winsorise: Annotated[tuple[float, ...], Field(min_length=2, max_length=2)] | None = None
    covariate: Covariate | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.kind == "exceedance") != (self.above is not None):
            raise ValueError("`above` belongs to kind: exceedance, and is required there")
        if (self.kind == "ratio") != (self.per is not None):
            raise ValueError("`per` belongs to kind: ratio, and is required there")
        if self.winsorise is not None and self.kind != "mean":
            raise ValueError("`winsorise` belongs to kind: mean")
        if self.winsorise is not None and self.winsorise[0] >= self.winsorise[1]:
            raise ValueError("`winsorise` has the lower bound first, and they differ")
        if self.covariate is not None and self.kind == "ratio":
            raise ValueError("a ratio takes no `covariate`")
        return self


class Primary(Metric):
    """Ship when treatment minus control is above `margin` (negative: not worse by more than that).

    Attributes:
        decision: `anytime`: a confidence sequence, narrowest at `planned_units` and valid for ever; `planned`:
            O'Brien-Fleming, sharper, with no decision after `planned_units`.
    """

    margin: float = 0.0
    decision: Literal["anytime", "planned"] = "anytime"

    @model_validator(mode="after")
    def _more_is_better(self) -> Self:
        if self.metric in {"error", "latency_ms"}:
            raise ValueError(f"a primary ships what has more of it, and less of `{self.metric}` is better: guard by it")
        return self


class Guardrail(Metric):
    """Roll back when treatment minus control is above `max_increase`."""

    max_increase: float


class Segment(Declared):
    """Some of the units, told apart by what was reported of them before the experiment began.

    Attributes:
        metric: name of outcomes; their mean decides. A unit without any is in no segment of this metric.
        above: units above it.
        at_most: units at or below it.
    """

    name: Name
    metric: MetricName
    above: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.above is None and self.at_most is None:
            raise ValueError("a segment needs `above` or `at_most`")
        return self
