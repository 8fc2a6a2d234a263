"""How far an experiment has come: written by rollout, read by all others."""

from typing import Any, Literal, Self

from pydantic import field_serializer, model_validator

from emberline.experiment.spec import Spec
from emberline.paper import Frozen

Phase = Literal["Pending", "Shadow", "Ramping", "Paused", "Shipped", "RolledBack", "Invalid"]

TERMINAL: frozenset[Phase] = frozenset({"Shipped", "RolledBack", "Invalid"})


class Window(Frozen):
    """Which rows belong to one ramp step: those with its configuration, from `since` on.

    Attributes:
        since: Unix time, seconds, at which the routers were seen to have taken the configuration.
        until: Unix time at which the verdict fell; None while the step goes on.
    """

    config_version: str
    step: int
    since: float
    until: float | None = None


class Status(Frozen):
    """Written by rollout only.

    Attributes:
        step: index into the ramp.
        weights: out of 10,000, by variant name, in the order of the variants.
        shadow: share of live requests mirrored to the treatment.
        noise: share of live requests that the control is asked again.
        since: Unix time at which this step began, seconds; observations of a step begin here. 0 while routers have
            not confirmed the step's configuration yet. Of an ended one, when it ended: the last decides for its model.
        began: Unix time at which the first step began; covariates and segments are older than it.
        revision: counts what routers have to change; part of the configuration version that they report.
        spec_digest: of the spec this status was made for; a change in mid-flight makes the experiment invalid.
        spec: that spec itself, which stays in force whatever becomes of the file. None before the experiment has begun.
        judged: the step that the verdict was passed on, once there is one.
    """

    phase: Phase = "Pending"
    step: int = 0
    weights: dict[str, int] = {}
    shadow: float = 0.0
    noise: float = 0.0
    since: float = 0.0
    began: float = 0.0
    revision: int = 0
    reason: str = ""
    spec_digest: str = ""
    spec: Spec | None = None
    judged: Window | None = None

    @model_validator(mode="after")
    def _of_its_digest(self) -> Self:
        if self.spec is not None and self.spec.digest != self.spec_digest:
            raise ValueError("`spec` is not the one that `spec_digest` tells; only rollout writes a status")
        return self

    @field_serializer("spec")
    def _compact(self, spec: Spec | None) -> dict[str, Any] | None:
        return None if spec is None else spec.model_dump(mode="json", exclude_defaults=True)
