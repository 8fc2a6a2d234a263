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
            A secondary metric's limit is 0, and its side `open` until Holm's adjusted p-value allows the claim.
        method: of the interval: one that may be looked at at any time, or that of a decision planned at a size.
        variance_ratio: what the covariate left of the variance; 1 without one.
        segment: the units that it is about; None for all.
        exploratory: the segment was not declared before; no claim can be made.
        p, p_adjusted: of no difference, valid at any look, alone and by Holm's method; None where nothing is claimed.
    """

    metric: str
    role: Literal["primary", "guardrail", "secondary", "segment"]
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
    method: Literal["anytime", "planned"] = "anytime"
    variance_ratio: float = 1.0
    segment: str | None = None
    exploratory: bool = False
    p: float | None = None
    p_adjusted: float | None = None


class AccuracyResult(Frozen):
    """Which version is right more often, from labels of the requests on which they disagree.

    Attributes:
        difference: the treatment's accuracy minus the control's.
        unlabelled: disagreements that a label may still decide; the interval holds every such label.
    """

    labelled: int
    unlabelled: int
    better: int
    worse: int
    difference: float
    lower: float
    upper: float
    limit: float | None
    side: Side


class NoiseResult(Frozen):
    """How often the control disagrees with itself: no version can be held to less."""

    pairs: int
    disagreements: int
    rate: float
    lower: float
    upper: float


class PairsResult(Frozen):
    """Answers of both versions to the same requests."""

    pairs: int
    disagreements: int
    rate: float
    lower: float
    upper: float
    limit: float | None
    side: Side
    noise: NoiseResult | None = None
    accuracy: AccuracyResult | None = None


class ArmResult(Frozen):
    variant: str
    version: str
    weight: int
    units: int
    requests: int
    fallbacks: int


class CostResult(Frozen):
    """What a request costs with one variant.

    Attributes:
        requests: that were measured, copies to a shadow included.
        cpu_ms: processor time of a request.
        gpu_ms: time of a request in which a GPU was busy with it; None where the version's workers have no GPU, or its
            driver does not tell.
        price_per_million: of a million requests; None where the experiment names no price of what they use.
        value_per_price: the primary metric's value for one unit of money, such as right answers a dollar.
    """

    variant: str
    requests: int
    cpu_ms: float
    gpu_ms: float | None = None
    price_per_million: float | None = None
    value_per_price: float | None = None


class Assessment(Frozen):
    """A judgement of one ramp step.

    Attributes:
        advance: the step's condition is met with nothing against it: the next step may begin.
        reasons: why, the most important first; never empty.
        step: index into the ramp; None before routers have taken the first configuration.
        progress: phase and step in words, counted from 1, and of an ended experiment why it did not ship.
        ended: nothing moves any more; the arms are those of the step that was judged.
        weights_text: who answers how much of the traffic now.
        waited_s: since the step began.
        secondary: further metrics, and the primary in segments; they decide nothing.
        sample_ratio_p: sequential p-value; None where the step has one arm.
    """

    experiment: str
    verdict: Verdict
    reasons: tuple[str, ...]
    advance: bool = False
    phase: str
    step: int | None = None
    progress: str = ""
    ended: bool = False
    weights_text: str = ""
    config_version: str = ""
    at: float
    waited_s: float = 0.0
    arms: tuple[ArmResult, ...] = ()
    metrics: tuple[MetricResult, ...] = ()
    secondary: tuple[MetricResult, ...] = ()
    pairs: PairsResult | None = None
    sample_ratio_p: float | None = None
    crossed: int = 0
    costs: tuple[CostResult, ...] = ()
