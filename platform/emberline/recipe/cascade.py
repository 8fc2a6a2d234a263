"""Several artifacts served as one version, the lightest first."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emberline.recipe.fields import Fraction, Name, Section, Version


class Pass(Section):
    """One model of a cascade, and which rows go on to the next; the last one has no rule.

    `tuned` leaves a rule to `emberline compress`, which finds the cheapest on validation rows.
    """

    artifact: Name
    keep: Annotated[int, Field(ge=1)] | Literal["tuned"] | None = None
    """Of a ranking's items, this many of the best go on."""
    confidence: Annotated[float, Field(gt=0, le=1)] | Literal["tuned"] | None = None
    """A row whose likeliest class is less probable than this goes on."""

    @property
    def is_tuned(self) -> bool:
        return "tuned" in (self.keep, self.confidence)


class Cascade(Section):
    """Artifacts of one recipe served as one version, the lightest first."""

    version: Version
    passes: tuple[Pass, ...] = Field(min_length=2)
    max_drop: Fraction | None = None
    """Accuracy that the cascade may lose on validation rows against its last pass alone; of rankings, the fraction of
    its NDCG."""
    top: int = Field(default=25, ge=1)
    """Of rankings: how many of the first items are shown, and so count in NDCG."""

    @model_validator(mode="after")
    def _rules_lead_on(self) -> "Cascade":
        *first, last = self.passes
        if last.keep is not None or last.confidence is not None:
            raise ValueError(f"{last.artifact} is the last pass; keep and confidence say who goes on to another")
        for one in first:
            if one.keep is None and one.confidence is None:
                raise ValueError(f"{one.artifact} needs keep or confidence, which say who goes on")
        kept = [one.keep for one in first if isinstance(one.keep, int)]
        if kept != sorted(kept, reverse=True):
            raise ValueError(f"keep goes up from pass to pass: {kept}")
        if any(one.is_tuned for one in first) and self.max_drop is None:
            raise ValueError("max_drop is required where a rule is tuned: the cheapest rule of all sends nothing on")
        return self
