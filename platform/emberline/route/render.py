"""What Envoy is to do for a set of experiments: checked as a whole, then rendered to the files it watches."""

from dataclasses import dataclass

import orjson

from emberline.errors import InvalidSetting
from emberline.experiment import TOTAL_WEIGHT, Experiment
from emberline.paper import digest_of
from emberline.route.clusters import TYPE, Json, render_clusters
from emberline.route.routes import render_mirrored_routes, render_routes
from emberline.route.settings import Served, Settings


@dataclass(frozen=True)
class Rendering:
    """Envoy's dynamic configuration.

    Attributes:
        clusters: by name.
        version: digest of all of it; Envoy reports the one it runs.
    """

    clusters: dict[str, Json]
    routes: Json
    mirrored: Json

    @property
    def version(self) -> str:
        return digest_of([self.clusters, self.routes, self.mirrored])[:16]


def render(experiments: tuple[Experiment, ...], settings: Settings) -> Rendering:
    """Renders experiments that have been checked together.

    Raises:
        InvalidSetting: an experiment cannot be routed; names it.
    """
    check_together(experiments, settings)
    experiments = in_charge(experiments)
    clusters = {str(cluster["name"]): cluster for cluster in render_clusters(experiments, settings)}
    return Rendering(clusters, render_routes(experiments, settings), render_mirrored_routes(experiments, settings))


def in_charge(experiments: tuple[Experiment, ...]) -> tuple[Experiment, ...]:
    """The experiment that decides for each model: one that is going on, else the one that ended last."""
    by_model: dict[str, Experiment] = {}
    for experiment in sorted(experiments, key=lambda one: (not one.terminal, one.status.since, one.name)):
        by_model[experiment.spec.model] = experiment
    return tuple(sorted(by_model.values(), key=lambda one: one.name))


def check_together(experiments: tuple[Experiment, ...], settings: Settings) -> None:
    """Raises for the first experiment that cannot be routed beside those before it."""
    owners: dict[str, str] = {}
    for experiment in experiments:
        check_one(experiment, settings)
        model = experiment.spec.model
        if experiment.terminal:
            continue
        if model in owners:
            raise InvalidSetting(
                experiment.name,
                "spec.model",
                model,
                f"a model that experiment {owners[model]!r} does not use already",
                hint="wait until it has ended, or take its file out of the folder",
            )
        owners[model] = experiment.name


def check_one(experiment: Experiment, settings: Settings) -> None:
    """Envoy takes routes to clusters that answer nothing, and weights of any sum: users would find both first."""
    for variant in experiment.spec.variants:
        served = Served(experiment.spec.model, variant.version)
        if served not in settings.upstreams:
            known = [str(other) for other in settings.upstreams if other.model == served.model]
            raise InvalidSetting(
                experiment.name,
                f"spec.variants.{variant.name}.version",
                str(served),
                f"a version with an upstream ({', '.join(known) or 'none of this model is known'})",
                hint=f"start the router with --upstream {served}=HOST:PORT",
            )
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


def discovery(kind: str, version: str, resources: list[Json]) -> bytes:
    """A file of Envoy's file-based discovery; `kind` as in `config.cluster.v3.Cluster`."""
    typed = [{"@type": f"{TYPE}.{kind}", **resource} for resource in resources]
    return orjson.dumps({"version_info": version, "resources": typed})
