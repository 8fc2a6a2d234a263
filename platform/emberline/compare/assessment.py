"""What an assessment says: one verdict, its reasons in words, and every number behind them."""

from typing import Literal

from emberline.paper import Frozen

Verdict = Literal["running", "ship", "stop", "inconclusive", "invalid"]
Side = Literal["above", "below", "open", "waiting"]


class MetricResult(Frozen):
    """One metric: both arms and their difference.

    Attributes:
        limit: the primary's margin or the guardrail's max_increase.
        side: where the whole interval lies beside the limit; `waiting` while an arm has too few units to say.
    """

    metric: str
    role: Literal["primary", "guardrail"]
    control: float | None
    treatment: float | None
    control_units: int
    treatment_units: int
    difference: float | None
    lower: float | None
    upper: float | None
    limit: float
    alpha: float
    side: Side


class PairsResult(Frozen):
    """Answers of both versions to the same requests."""

    pairs: int
    disagreements: int
    rate: float
    lower: float
    upper: float
    limit: float | None
    side: Side


class ArmResult(Frozen):
    variant: str
    version: str
    weight: int
    units: int
    requests: int
    fallbacks: int


class Assessment(Frozen):
    """A judgement of one ramp step.

    Attributes:
        advance: the step's condition is met with nothing against it: the next step may begin.
        reasons: why, the most important first; never empty.
        step: index into the ramp; None before routers have taken the first configuration.
        waited_s: since the step began.
        sample_ratio_p: sequential p-value; None where the step has one arm.
    """

    experiment: str
    verdict: Verdict
    reasons: tuple[str, ...]
    advance: bool = False
    phase: str
    step: int | None = None
    config_version: str = ""
    at: float
    waited_s: float = 0.0
    arms: tuple[ArmResult, ...] = ()
    metrics: tuple[MetricResult, ...] = ()
    pairs: PairsResult | None = None
    sample_ratio_p: float | None = None
    crossed: int = 0
