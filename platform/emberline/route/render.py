"""What Envoy is to do for a set of experiments: checked as a whole, then rendered to the files it watches."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import orjson

from emberline.errors import InvalidSetting
from emberline.experiment import TOTAL_WEIGHT, Deployed, Experiment
from emberline.paper import digest_of
from emberline.route.clusters import TYPE, Json, render_clusters, served_variants
from emberline.route.routes import render_mirrored_routes, render_routes
from emberline.route.settings import Served, Settings
from emberline.route.slices import HOLDOUT


@dataclass(frozen=True)
class Rendering:
    """Envoy's dynamic configuration.

    Attributes:
        clusters: by name.
        asked: versions that get requests.
        version: digest of what Envoy gets; it reports the one it runs.
    """

    clusters: dict[str, Json]
    routes: Json
    mirrored: Json
    asked: frozenset[Served]

    @property
    def version(self) -> str:
        return digest_of([self.clusters, self.routes, self.mirrored])[:16]


def render(
    experiments: tuple[Experiment, ...], settings: Settings, deployed: Mapping[str, Deployed] | None = None
) -> Rendering:
    """Renders experiments that have been checked together.

    Args:
        deployed: versions put in force without an experiment, by model; they take the place of the settings' defaults.

    Raises:
        InvalidSetting: an experiment cannot be routed; names it.
    """
    check_together(experiments, settings)
    deployed = deployed or {}
    experiments = in_charge(experiments, deployed)
    versions = {model: found.version for model, found in deployed.items()}
    settings = replace(settings, defaults={**settings.defaults, **versions})
    clusters = {str(cluster["name"]): cluster for cluster in render_clusters(experiments, settings)}
    return Rendering(
        clusters,
        render_routes(experiments, settings),
        render_mirrored_routes(experiments, settings),
        _asked(experiments, settings),
    )


def _asked(experiments: tuple[Experiment, ...], settings: Settings) -> frozenset[Served]:
    """The variants with a weight, and the defaults of models with units that no experiment gets."""
    decided = {one.spec.model for one in experiments if one.spec.layer is None and not settings.holdout}
    defaults = {Served(model, version) for model, version in settings.defaults.items() if model not in decided}
    return frozenset(
        defaults
        | {
            Served(one.spec.model, variant.version)
            for one in experiments
            for variant, weight in served_variants(one, settings)
            if weight
        }
    )


def in_charge(
    experiments: tuple[Experiment, ...], deployed: Mapping[str, Deployed] | None = None
) -> tuple[Experiment, ...]:
    """The experiments that decide for each unit of a model: one that is going on, else the one that ended last.

    One that ended before a version was deployed without an experiment decides no more.
    """
    chosen: list[Experiment] = []
    for experiment in sorted(experiments, key=lambda one: (one.terminal, -one.status.since, one.name)):
        after = (deployed or {}).get(experiment.spec.model)
        superseded = after is not None and experiment.terminal and experiment.status.since <= after.since
        if not superseded and not any(experiment.shares_units_with(other) for other in chosen):
            chosen.append(experiment)
    return tuple(sorted(chosen, key=lambda one: one.name))


def check_together(experiments: tuple[Experiment, ...], settings: Settings) -> None:
    """Raises for the first experiment that cannot be routed beside those before it."""
    going_on: list[Experiment] = []
    for experiment in experiments:
        check_one(experiment, settings)
        if experiment.terminal:
            continue
        for other in going_on:
            if experiment.shares_units_with(other):
                raise _sharing(experiment, other)
        going_on.append(experiment)


def _sharing(experiment: Experiment, other: Experiment) -> InvalidSetting:
    if experiment.spec.layer is None or other.spec.layer is None:
        return InvalidSetting(
            experiment.name,
            "spec.model",
            experiment.spec.model,
            f"a model that experiment {other.name!r} does not use already",
            hint="wait until it has ended, take its file out of the folder, or give each a slice of one `layer`",
        )
    mine, theirs = experiment.spec.layer, other.spec.layer
    return InvalidSetting(
        experiment.name,
        "spec.layer",
        f"{mine.name} {list(mine.buckets)}",
        f"of layer {theirs.name}, and of the same unit, a slice apart from {other.name!r}'s {list(theirs.buckets)}",
    )


def check_deployed(found: Deployed, settings: Settings) -> None:
    """A version that nobody serves would answer nobody."""
    served = Served(found.model, found.version)
    if served not in settings.upstreams:
        raise InvalidSetting(
            f"{found.model}.deployed.json",
            "version",
            str(served),
            "a version with an upstream",
            hint=f"start the router with --upstream {served}=HOST:PORT",
        )


def check_one(experiment: Experiment, settings: Settings) -> None:
    """Envoy takes routes to clusters that answer nothing, and weights of any sum: users would find both first."""
    for variant, weight in zip(experiment.spec.variants, experiment.weights, strict=True):
        served = Served(experiment.spec.model, variant.version)
        unused = experiment.terminal and not weight  # a loser is unregistered, and need not be served any more
        if served not in settings.upstreams and not unused:
            known = [str(other) for other in settings.upstreams if other.model == served.model]
            raise InvalidSetting(
                experiment.name,
                f"spec.variants.{variant.name}.version",
                str(served),
                f"a version with an upstream ({', '.join(known) or 'none of this model is known'})",
                hint=f"start the router with --upstream {served}=HOST:PORT",
            )
    _check_unit(experiment, settings)
    unknown = set(experiment.status.weights) - {variant.name for variant in experiment.spec.variants}
    if unknown:
        raise InvalidSetting(experiment.name, "status.weights", sorted(unknown), "weights of the experiment's variants")
    if sum(experiment.weights) != TOTAL_WEIGHT or min(experiment.weights) < 0:
        raise InvalidSetting(
            experiment.name,
            "status.weights",
            dict(experiment.status.weights),
            f"weights from 0 that sum to {TOTAL_WEIGHT}",
            hint="another sum would move every unit to another bucket",
        )


def _check_unit(experiment: Experiment, settings: Settings) -> None:
    """What a unit is must be known at the edge, and a slice of units needs a version for the others."""
    unit, name = experiment.spec.unit, experiment.name
    claims = settings.edge.tokens.claims if settings.edge.tokens is not None else ()
    if unit.jwt_claim is not None and unit.jwt_claim not in claims:
        required = f"a claim that the router reads ({', '.join(claims) or 'it checks no tokens'})"
        raise InvalidSetting(name, "spec.unit.jwt_claim", unit.jwt_claim, required, hint="--jwks and --jwt-claim")
    if unit.cookie is unit.jwt_claim is None and unit.header not in settings.unit_headers:
        required, hint = (
            f"one of {', '.join(settings.unit_headers)}",
            f"start the router with --unit-header {unit.header}",
        )
        raise InvalidSetting(name, "spec.unit.header", unit.header, required, hint=hint)
    if unit.cookie is not None and (settings.holdout or settings.limits.unit_requests_per_s is not None):
        required = "a header or a claim, since this router has a holdout or a limit of each unit"
        raise InvalidSetting(name, "spec.unit.cookie", unit.cookie, required)
    layer = experiment.spec.layer
    if layer is not None and layer.name == HOLDOUT and settings.holdout:
        required = "a name of its own: slices of this one are drawn as the holdout is"
        raise InvalidSetting(name, "spec.layer.name", layer.name, required)
    divided = layer is not None or settings.holdout
    if divided and experiment.spec.model not in settings.defaults:
        required = "a model with a default version, for units outside of the slice or in the holdout"
        hint = f"start the router with --default {experiment.spec.model}=VERSION"
        raise InvalidSetting(name, "spec.model", experiment.spec.model, required, hint=hint)


def discovery(kind: str, version: str, resources: list[Json]) -> bytes:
    """A file of Envoy's file-based discovery; `kind` as in `config.cluster.v3.Cluster`."""
    typed = [{"@type": f"{TYPE}.{kind}", **resource} for resource in resources]
    return orjson.dumps({"version_info": version, "resources": typed})
