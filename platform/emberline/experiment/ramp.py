"""Along which steps traffic goes to the treatment, and when each ends."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from emberline.experiment.declared import Declared
from emberline.experiment.duration import Duration
from emberline.experiment.variant import TOTAL_WEIGHT


class Until(Declared):
    """When a ramp step ends. Without a condition but `max_wait`, the step lasts that long.

    Attributes:
        min_units: units seen in this step, over all variants.
        disagreement_below: the shadow's share of differing labels is certified to be below this.
        accuracy_above: the shadow's accuracy minus the control's over the same requests is certified to be above this,
            once outcomes of the primary metric, and of `shadow_<metric>`, tell which answers were right.
        max_wait: a condition not met by then leaves the experiment inconclusive, and traffic goes back to the control.
    """

    min_units: Annotated[int, Field(ge=1)] | None = None
    disagreement_below: Annotated[float, Field(gt=0, lt=1)] | None = None
    accuracy_above: Annotated[float, Field(gt=-1, lt=1)] | None = None
    max_wait: Duration | None = None


class RampStep(Declared):
    """Either a shadow (share of live requests mirrored) or a weight out of 10,000 for the treatment.

    Attributes:
        noise: of a shadow, the share of live requests that the control is asked again, to know how often it disagrees
            with itself.
    """

    shadow: Annotated[float, Field(gt=0, le=1)] | None = None
    noise: Annotated[float, Field(gt=0, le=1)] | None = None
    weight: Annotated[int, Field(ge=1, le=TOTAL_WEIGHT)] | None = None
    until: Until = Until()

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.shadow is None) == (self.weight is None):
            raise ValueError("a step has either `shadow` or `weight`")
        if self.noise is not None and self.shadow is None:
            raise ValueError("`noise` belongs to a shadow")
        pairs = {"disagreement_below", "accuracy_above"} & self.until.model_dump(exclude_none=True).keys()
        if self.weight is not None and pairs:
            raise ValueError(f"`{pairs.pop()}` belongs to a shadow: a step with a weight has no pairs of answers")
        return self
