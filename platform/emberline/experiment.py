"""The Experiment: which versions compete, on which metrics, along which ramp. The same YAML locally and in Kubernetes.

Locally an experiment is a file `<name>.yaml` in a folder, with its status beside it in `<name>.status.json`; in the
cluster it is a custom resource, and the controller writes the same two files into the ConfigMap that routers mount.
Only rollout writes a status; route reads it to know the weights.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
import yaml
from pydantic import BeforeValidator, Field, model_validator

from emberline import storage
from emberline.errors import InvalidSetting, MissingFile
from emberline.paper import Frozen, digest_of
from emberline.recipe import Name, Version, overlay, parse_model, read_yaml

API_VERSION = "emberline.dev/v1"
TOTAL_WEIGHT = 10_000

Phase = Literal["Pending", "Shadow", "Ramping", "Paused", "Shipped", "RolledBack", "Invalid"]

TERMINAL: frozenset[Phase] = frozenset({"Shipped", "RolledBack", "Invalid"})

_AS_DURATION = "a number with s, m, h or d: 90s, 10m, 2h or 7d"
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError("a duration such as 90s, 2h or 7d is required")


def parse_duration(text: str, place: str) -> float:
    """Seconds of an option such as 90s, 10m, 2h or 7d.

    Raises:
        InvalidSetting: it is none.
    """
    try:
        return float(_seconds(text))
    except ValueError as error:
        raise InvalidSetting("command line", place, text, "a duration", hint=_AS_DURATION) from error


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
"""Seconds, written in YAML as 90s, 10m, 2h or 7d."""


MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Unit(Frozen):
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


class Layer(Frozen):
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


class Variant(Frozen):
    name: Name
    version: Version
    control: bool = False


class Covariate(Frozen):
    """What was known of a unit before the experiment began; takes the noise that it explains out of a metric.

    Attributes:
        metric: name of outcomes; a unit's covariate is their mean.
        days: how far back before the experiment's first step outcomes count.
    """

    metric: MetricName
    days: Annotated[float, Field(gt=0)] = 28.0


class Metric(Frozen):
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


class Guardrail(Metric):
    """Roll back when treatment minus control is above `max_increase`."""

    max_increase: float


class Segment(Frozen):
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


class Agreement(Frozen):
    """When two answers to one request agree: the same label, or scores at most `within` apart."""

    by: Literal["label", "score"] = "label"
    within: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _distance(self) -> Self:
        if self.within and self.by == "label":
            raise ValueError("labels have no distance; `within` belongs to by: score")
        return self


class Until(Frozen):
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


class RampStep(Frozen):
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


class Price(Frozen):
    """What an hour of a processor core costs, in whatever money; reports then tell prices in it."""

    cpu_hour: Annotated[float, Field(gt=0)]


class Spec(Frozen):
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
        shares = self.primary.kind == "rate" and self.agreement.by == "label"
        if not shares and any(step.until.accuracy_above is not None for step in self.ramp):
            raise ValueError("`accuracy_above` needs a primary of kind: rate and agreement by label")
        return self

    @property
    def treatment(self) -> Variant:
        return self.variants[0]

    @property
    def control(self) -> Variant:
        return self.variants[1]


class Metadata(Frozen):
    name: Name


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
    judged: Window | None = None


class Experiment(Frozen):
    name: str
    spec: Spec
    status: Status = Status()

    @property
    def salt(self) -> str:
        return self.spec.salt or self.name

    @property
    def spec_digest(self) -> str:
        """Fields at their default don't count, so that a field added later changes no experiment that is running."""
        return digest_of(self.spec.model_dump(mode="json", exclude_defaults=True))

    @property
    def config_version(self) -> str:
        """What routers put into the `x-config-version` header and each exposure."""
        return f"{self.name}-{self.status.revision}-{self.spec_digest[:8]}"

    @property
    def terminal(self) -> bool:
        """Nothing moves any more."""
        return self.status.phase in TERMINAL

    @property
    def progress(self) -> str:
        """Phase and step, counted from 1: `Ramping, step 2 of 3`, `Shipped after step 3 of 3`."""
        phase = self.status.phase
        if phase == "Pending" or (self.terminal and self.status.judged is None):
            return phase
        return f"{phase}{' after' if self.terminal else ','} step {self.status.step + 1} of {len(self.spec.ramp)}"

    def shares_units_with(self, other: "Experiment") -> bool:
        """Whether a request may belong to either: of one model, and not kept apart by one layer's slices."""
        if self.spec.model != other.spec.model:
            return False
        mine, theirs = self.spec.layer, other.spec.layer
        if mine is None or theirs is None or mine.name != theirs.name or self.spec.unit != other.spec.unit:
            return True
        return mine.overlaps(theirs)

    @property
    def window(self) -> Window | None:
        """The rows to look at: of the current ramp step, or of the one that was judged; None before there are any."""
        if self.terminal or self.status.phase == "Pending":
            return self.status.judged
        if not self.status.since:
            return None
        return Window(config_version=self.config_version, step=self.status.step, since=self.status.since)

    @property
    def weights(self) -> tuple[int, ...]:
        """Weights in the order of the variants; all to the control before rollout has begun."""
        if not self.status.weights:
            return tuple(TOTAL_WEIGHT if variant.control else 0 for variant in self.spec.variants)
        return tuple(self.status.weights.get(variant.name, 0) for variant in self.spec.variants)

    @property
    def weights_text(self) -> str:
        """Who answers how much of the traffic now: `int8 50 %, fp32 50 %`."""
        named = zip(self.spec.variants, self.weights, strict=True)
        return ", ".join(f"{variant.name} {weight / 100:g} %" for variant, weight in named)


class Deployed(Frozen):
    """The version that answers where no experiment decides, as rollout has put it in force without one.

    Attributes:
        previous: what answered before; it is drained and let go.
        since: Unix time; experiments that ended earlier decide no more.
    """

    model: Name
    version: Version
    previous: str = ""
    since: float
    reason: str


class _Document(Frozen):
    """The file as written for `kubectl apply`."""

    apiVersion: Literal["emberline.dev/v1"]  # noqa: N815 - Kubernetes' spelling
    kind: Literal["Experiment"]
    metadata: dict[str, Any]
    spec: Spec
    status: dict[str, Any] = {}


def parse_experiment(raw: dict[str, Any], place: Path) -> Experiment:
    """An experiment from its document; a `status` in it is what the cluster reports.

    Raises:
        InvalidSetting, UnknownKey: with the file and key that is wrong.
    """
    document = parse_model(_Document, raw, place)
    metadata = parse_model(Metadata, {"name": document.metadata.get("name")}, place)
    status = parse_model(Status, {k: v for k, v in document.status.items() if k in Status.model_fields}, place)
    return Experiment(name=metadata.name, spec=document.spec, status=status)


def load_experiment(path: Path, settings: tuple[str, ...] = ()) -> Experiment:
    """Reads `<name>.yaml` and, where it is there, the status beside it."""
    if not path.exists():
        raise MissingFile(path, "the experiment", hint="emberline ships recipes/digits.experiment.yaml")
    experiment = parse_experiment(overlay(read_yaml(path), settings), path)
    status = status_path(path.parent, experiment.name)
    if not status.is_file():
        return experiment
    try:
        raw = orjson.loads(status.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InvalidSetting(status, "the file", "no JSON", "a status as rollout writes it") from error
    return experiment.model_copy(update={"status": parse_model(Status, raw, status)})


def load_experiments(folder: Path) -> tuple[Experiment, ...]:
    """All experiments of a folder, by name."""
    found = [load_experiment(path) for path in sorted(folder.glob("*.yaml"))]
    return tuple(sorted(found, key=lambda experiment: experiment.name))


def status_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.status.json"


def write_status(folder: Path, name: str, status: Status) -> None:
    """Atomically replaces the status file; for rollout alone."""
    storage.write_bytes(status_path(folder, name), orjson.dumps(status.model_dump(), option=orjson.OPT_INDENT_2))


def deployed_path(folder: Path, model: str) -> Path:
    return folder / f"{model}.deployed.json"


def load_deployed(path: Path) -> Deployed:
    """Reads a `<model>.deployed.json`.

    Raises:
        InvalidSetting: it is none.
    """
    try:
        raw = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InvalidSetting(path, "the file", "no JSON", "a deployment as rollout writes it") from error
    return parse_model(Deployed, raw, path)


def to_yaml(experiment: Experiment) -> str:
    """The document of an experiment, without its status."""
    spec = experiment.spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    document = {"apiVersion": API_VERSION, "kind": "Experiment", "metadata": {"name": experiment.name}, "spec": spec}
    return yaml.safe_dump(document, sort_keys=False)
