"""Which of a model's route lists a unit gets, where a holdout or a layer divides its units: Envoy's matcher trees.

A node asks whether `xxh64(id, seed) % 10000` is at or above a threshold, the highest threshold first; so slices are
contiguous, and each hash is drawn apart from the others: a unit's slice says nothing of its variant.

Source: Envoy 1.40, `envoy.matching.matchers.consistent_hashing`; emberline.assignment.layer_bucket computes the same.
"""

import re
from collections.abc import Sequence
from typing import Any

from emberline.assignment import layer_seed
from emberline.experiment import TOTAL_WEIGHT, Experiment
from emberline.route.clusters import TYPE

Json = dict[str, Any]
HOLDOUT = "holdout"
"""Name of the layer that the holdout is drawn by, and of the experiment that its exposures are logged under."""


def divided(path: str, header: str, holdout: int, held: Json, slices: Json) -> Json:
    """Of one path: units in the holdout (out of 10,000) get `held`, others what `slices` says."""
    node = slices
    if holdout:
        node = {"matcher": _by_hash(header, HOLDOUT, [(holdout, slices)], held)}
    asked = {
        "predicate": {
            "single_predicate": {
                "input": _header(":path"),
                "value_match": {"safe_regex": {"google_re2": {}, "regex": rf"{re.escape(path)}(\?.*)?"}},
            }
        }
    }
    return {**asked, "on_match": node}


def by_layer(header: str, experiments: Sequence[tuple[Experiment, Json]], rest: Json) -> Json:
    """Each experiment's slice of one layer gets its routes, what lies between them `rest`."""
    layers = [(experiment.spec.layer, routes) for experiment, routes in experiments]
    bounds: dict[int, Json] = {0: rest}
    for layer, routes in sorted(
        ((one, routes) for one, routes in layers if one is not None), key=lambda x: x[0].buckets
    ):
        bounds[layer.buckets[0]] = routes
        if layer.buckets[1] < TOTAL_WEIGHT:
            bounds.setdefault(layer.buckets[1], rest)
    name = next(layer.name for layer, _ in layers if layer is not None)
    above = [(threshold, routes) for threshold, routes in sorted(bounds.items(), reverse=True) if threshold]
    return {"matcher": _by_hash(header, name, above, bounds[0])} if above else bounds[0]


def routes_of(routes: list[Json]) -> Json:
    """A leaf: routes, the first that matches counts."""
    return {
        "action": {
            "name": "routes",
            "typed_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteList", "routes": routes},
        }
    }


def _by_hash(header: str, layer: str, above: Sequence[tuple[int, Json]], below: Json) -> Json:
    kind = f"{TYPE}.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing"
    matchers = [
        {
            "predicate": {
                "single_predicate": {
                    "input": _header(header),
                    "custom_match": {
                        "name": "envoy.matching.matchers.consistent_hashing",
                        "typed_config": {
                            "@type": kind,
                            "threshold": threshold,
                            "modulo": TOTAL_WEIGHT,
                            "seed": str(layer_seed(layer)),
                        },
                    },
                }
            },
            "on_match": node,
        }
        for threshold, node in above
    ]
    return {"matcher_list": {"matchers": matchers}, "on_no_match": below}


def _header(name: str) -> Json:
    return {
        "name": "header",
        "typed_config": {"@type": f"{TYPE}.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": name},
    }
