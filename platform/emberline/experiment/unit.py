"""Who takes part: what is assigned to a variant."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from emberline.experiment.declared import Declared
from emberline.experiment.variant import TOTAL_WEIGHT
from emberline.recipe import Name


class Unit(Declared):
    """What is assigned to a variant: whoever sends this header, this cookie, or a token with this claim.

    Attributes:
        cookie: in place of a header; a request without it gets one.
        jwt_claim: in place of a header; the router checks tokens (`--jwks`).
    """

    header: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "x-unit-id"
    cookie: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=40)] | None = None
    jwt_claim: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        header = self.header != Unit.model_fields["header"].default  # a cluster fills defaults in
        if sum([header, self.cookie is not None, self.jwt_claim is not None]) > 1:
            raise ValueError("a unit has one of `header`, `cookie` and `jwt_claim`")
        return self


class Layer(Declared):
    """A slice of a model's units; experiments of one layer with slices of their own never share a unit.

    Attributes:
        name: salt of the draw that makes the slices; the same for all experiments of the layer.
        buckets: from this one on, until before that one, of 10,000.
    """

    name: Name
    buckets: Annotated[tuple[int, ...], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _slice(self) -> Self:
        first, end = self.buckets
        if not 0 <= first < end <= TOTAL_WEIGHT:
            raise ValueError(f"`buckets` are two of 0 to {TOTAL_WEIGHT}, the lower one first")
        return self

    def overlaps(self, other: "Layer") -> bool:
        return self.buckets[0] < other.buckets[1] and other.buckets[0] < self.buckets[1]
