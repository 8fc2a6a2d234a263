"""What is declared of an experiment before it begins."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emberline.experiment.declared import Declared
from emberline.experiment.metric import Guardrail, Metric, Primary, Segment
from emberline.experiment.ramp import RampStep
from emberline.experiment.unit import Layer, Unit
from emberline.experiment.variant import TOTAL_WEIGHT, Variant
from emberline.paper import digest_of
from emberline.recipe import Name


class Agreement(Declared):
    """When two answers to one request agree: the same label, or scores at most `within` apart."""

    by: Literal["label", "score"] = "label"
    within: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _distance(self) -> Self:
        if self.within and self.by == "label":
            raise ValueError("labels have no distance; `within` belongs to by: score")
        return self


class Price(Declared):
    """What an hour of a processor core costs, and one of a GPU, in whatever money; reports then tell prices in it."""

    cpu_hour: Annotated[float, Field(gt=0)]
    gpu_hour: Annotated[float, Field(gt=0)] | None = None


class Spec(Declared):
    model: Name
    unit: Unit = Unit()
    salt: str | None = None
    """Salt of the assignment; the experiment's name when absent."""
    layer: Layer | None = None
    """The slice of the model's units that take part; all of them when absent. The others get the default version."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=2, max_length=2)]
    primary: Primary
    guardrails: tuple[Guardrail, ...] = ()
    secondary: tuple[Metric, ...] = ()
    """Reported beside the primary, with segments, at a level of their own that Holm's method shares; decide nothing."""
    segments: tuple[Segment, ...] = ()
    agreement: Agreement = Agreement()
    price: Price | None = None
    ramp: Annotated[tuple[RampStep, ...], Field(min_length=1)]
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    planned_units: Annotated[int, Field(ge=2)] | None = None
    """Units of both variants at which intervals are narrowest; `emberline plan` computes it. 5,000 when absent."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if [variant.control for variant in self.variants] != [False, True]:
            raise ValueError("treatments come first and the control last: the router assigns in this order")
        if self.variants[0].name == self.variants[1].name:
            raise ValueError("variants need names of their own")
        weights = [step.weight for step in self.ramp if step.weight is not None]
        if weights != sorted(weights):
            raise ValueError("weights of a ramp never fall: treated units stay treated")
        if not weights:
            raise ValueError("a ramp needs at least one step with a weight")
        if weights[-1] == TOTAL_WEIGHT:
            raise ValueError(f"a step with weight {TOTAL_WEIGHT} has no control to compare with; shipping does that")
        if self.ramp[-1].weight is None:
            raise ValueError("the last step of a ramp has a weight: it asks the primary metric")
        if self.layer is not None and self.unit.cookie is not None:
            raise ValueError("a `layer` needs units by header or claim: a cookie that is minted has no slice yet")
        return self

    @model_validator(mode="after")
    def _statistics(self) -> Self:
        if self.primary.decision == "planned" and self.planned_units is None:
            raise ValueError("`decision: planned` needs `planned_units`; `emberline plan` computes it")
        names = [segment.name for segment in self.segments]
        if len(names) != len(set(names)):
            raise ValueError("segments need names of their own")
        for field, metrics in (("guardrails", self.guardrails), ("secondary", self.secondary)):
            asked = [(metric.metric, metric.kind, metric.above, metric.per) for metric in metrics]
            twice = next((one for one in asked if asked.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f"`{field}` names {twice[0]} of kind: {twice[1]} twice; once is enough")
        shares = self.primary.kind == "rate" and self.agreement.by == "label"
        if not shares and any(step.until.accuracy_above is not None for step in self.ramp):
            raise ValueError("`accuracy_above` needs a primary of kind: rate and agreement by label")
        return self

    @property
    def digest(self) -> str:
        """Fields at their default don't count, so that a field added later changes no experiment that is running."""
        return digest_of(self.model_dump(mode="json", exclude_defaults=True))

    def differences(self, other: "Spec") -> tuple[str, ...]:
        """Names of the fields in which two specs differ."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))

    @property
    def treatment(self) -> Variant:
        return self.variants[0]

    @property
    def control(self) -> Variant:
        return self.variants[1]
