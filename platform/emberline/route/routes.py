"""Envoy routes: which variant answers a request, and what is refused before any variant sees it.

A path nobody promised is 404, so a model server's management can never be reached. Errors of the router itself are
plain sentences here; the listener turns them into JSON, with the field from the route's metadata.
"""

import json
from typing import Any

from emberline import __version__
from emberline.assignment import MAX_UNIT_BYTES
from emberline.experiment import Experiment, Unit
from emberline.route.clusters import DASHBOARD, NOISE, OUTCOMES, SHADOW, Json, cluster_name, default_cluster_name
from emberline.route.edge import OPEN_PATHS, open_to_all
from emberline.route.rates import UNIT_RATE_FILTER, unit_rate_limit
from emberline.route.settings import Limits, Served, Settings
from emberline.route.slices import HOLDOUT, by_layer, divided, routes_of
from emberline.route.units import Source, header_of, sources_of

MAIN = "emberline-main"
MIRRORED = "emberline-mirrored"
BUSY_FILTER = "envoy.filters.http.custom_response"
# what the log says of a request travels with it in these; clients cannot set them, the listener removes theirs
CONFIG_HEADER = "x-ember-config"
EXPERIMENT_HEADER = "x-ember-experiment"
UNIT_HEADER = "x-ember-unit"
MODEL_HEADER = "x-ember-model"
VERSION_HEADER = "x-ember-version"
METADATA_HEADER = "x-ember-metadata"  # asks a handler for metadata in place of a prediction
COPY_HEADER = "x-ember-copy"
OUTCOMES_PATH = "/v1/outcomes"
INTERNAL_HEADERS = (
    CONFIG_HEADER,
    EXPERIMENT_HEADER,
    UNIT_HEADER,
    MODEL_HEADER,
    VERSION_HEADER,
    COPY_HEADER,
    METADATA_HEADER,
)

# of the time for a request: as long as one try may take, so that another one can follow
_TRY_SHARE = 0.45
_POST: Json = {"name": ":method", "string_match": {"exact": "POST"}}
_FORM: Json = {
    "name": "content-type",
    "string_match": {"prefix": "application/x-www-form-urlencoded", "ignore_case": True},
}
_GET: Json = {"name": ":method", "string_match": {"exact": "GET"}}
_SERVER_METADATA = json.dumps({"name": "emberline", "version": __version__, "extensions": []}) + "\n"


def render_routes(experiments: tuple[Experiment, ...], settings: Settings) -> Json:
    """The route configuration of the listener that clients reach.

    Args:
        experiments: those in charge; several of one model are of one layer.
    """
    routes: list[Json] = []
    divisions: list[Json] = []
    by_model: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        by_model.setdefault(experiment.spec.model, []).append(experiment)
    for model, of_model in by_model.items():
        control = of_model[0].spec.control
        asked = Served(model, control.version)
        routes += _metadata_routes(asked, cluster_name(of_model[0], control), settings.limits)
        for path in model_paths(model):
            if of_model[0].spec.layer is None and not settings.holdout:
                routes += _experiment_routes(of_model[0], path, settings)
            else:
                divisions.append(_division(of_model, path, settings))
    for model, version in sorted(settings.defaults.items()):
        if model not in by_model:
            served = Served(model, version)
            routes += _metadata_routes(served, default_cluster_name(served), settings.limits)
            for path in model_paths(model):
                routes += _asked_as_json(_default_route(served, path, settings.limits))
                routes.append(_only("POST", path, _set("x-config-version", default_config(served))))
    routes += _fixed_routes(settings)
    host: Json = {"name": "all", "domains": ["*"]}
    if divisions:
        host["matcher"] = {"matcher_list": {"matchers": divisions}, "on_no_match": routes_of(routes)}
    else:
        host["routes"] = routes
    return {"name": MAIN, "virtual_hosts": [host]}


def _division(experiments: list[Experiment], path: str, settings: Settings) -> Json:
    """A path whose units are divided: by the holdout, by a layer's slices, or both."""
    first = experiments[0]
    model, unit = first.spec.model, first.spec.unit
    header = header_of(unit)
    assert header is not None  # noqa: S101 - checked with the experiment
    served = Served(model, settings.defaults[model])
    versions = ", ".join([*(one.config_version for one in experiments), default_config(served)])
    told = _set("x-config-version", versions)

    def leaf(routes: tuple[Json, ...]) -> Json:
        return routes_of([*routes, *_refusals(unit, path, versions), _only("POST", path, told)])

    source = sources_of(unit)[0]
    rest = leaf(_asked_as_json(_unit_route(_default_route(served, path, settings.limits), source)))
    held = leaf(_asked_as_json(_held_route(served, path, source, settings)))
    own = [(one, leaf(tuple(_variant_routes(one, path, settings)))) for one in experiments]
    slices = own[0][1] if first.spec.layer is None else by_layer(header, own, rest)
    return divided(path, header, settings.holdout, held, slices)


def _held_route(served: Served, path: str, source: Source, settings: Settings) -> Json:
    """The default version, with an exposure: what shipping brought can be told from what units in the holdout got."""
    route = _unit_route(_default_route(served, path, settings.limits), source)
    route["request_headers_to_add"] += [
        _set(CONFIG_HEADER, f"{HOLDOUT}-{settings.holdout}"),
        _set(EXPERIMENT_HEADER, HOLDOUT),
        _set(MODEL_HEADER, served.model),
        _set(UNIT_HEADER, source.logged),
    ]
    return route


def _unit_route(route: Json, source: Source) -> Json:
    """The route for requests with a usable unit alone."""
    match = {**route["match"], "headers": [*route["match"]["headers"], *source.usable]}
    return {**route, "match": match, "request_headers_to_add": [*route["request_headers_to_add"]]}


def render_mirrored_routes(experiments: tuple[Experiment, ...], settings: Settings) -> Json:
    """The route configuration of the listeners inside Envoy: copies for the treatment and, for noise, the control."""
    routes: list[Json] = [
        {
            # by experiment and not by path: a mirrored request carries the path that the first version was asked under
            "match": {
                "prefix": "/",
                "headers": [_exactly(EXPERIMENT_HEADER, experiment.name), _exactly(COPY_HEADER, copy)],
            },
            "route": {
                "cluster": cluster_name(experiment, variant),
                **_asking(experiment.spec.model, settings.limits, num_retries=0),
            },
            "request_headers_to_add": [_set(VERSION_HEADER, variant.version)],
        }
        for experiment in experiments  # with or without a shadow now: the last mirrored requests may still come
        for copy, variant in ((SHADOW, experiment.spec.treatment), (NOISE, experiment.spec.control))
    ]
    return {"name": MIRRORED, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}


def model_paths(model: str) -> tuple[str, str]:
    """TorchServe's path, and the Open Inference Protocol's."""
    return f"/predictions/{model}", f"/v2/models/{model}/infer"


def _experiment_routes(experiment: Experiment, path: str, settings: Settings) -> list[Json]:
    version = experiment.config_version
    return [
        *_variant_routes(experiment, path, settings),
        *_refusals(experiment.spec.unit, path, version),
        # a GET tells which configuration is in force, and costs no model anything
        _only("POST", path, _set("x-config-version", version)),
    ]


def _variant_routes(experiment: Experiment, path: str, settings: Settings) -> list[Json]:
    routes: list[Json] = []
    sources = sources_of(experiment.spec.unit)
    for index, source in enumerate(sources):
        told = [_set("x-config-version", experiment.config_version)]
        if source.cookie is not None:
            told.append(_cookie(source.cookie, secure=settings.edge.tls is not None))
        route: Json = {
            # a unit that is there and unusable is not replaced by another one
            "match": {
                "path": path,
                "headers": [
                    _POST,
                    *source.usable,
                    *(_not(one) for earlier in sources[:index] for one in earlier.present),
                ],
            },
            "route": _variants(experiment, source, settings.limits),
            "request_headers_to_add": [
                _set(CONFIG_HEADER, experiment.config_version),
                _set(EXPERIMENT_HEADER, experiment.name),
                _set(MODEL_HEADER, experiment.spec.model),
                _set(UNIT_HEADER, source.logged),
            ],
            "response_headers_to_add": told,
        }
        by_filter = source.extraction
        if settings.limits.unit_requests_per_s is not None:
            by_filter[UNIT_RATE_FILTER] = unit_rate_limit(source.header, settings.limits.unit_requests_per_s)
        if by_filter:
            route["typed_per_filter_config"] = by_filter
        routes += _asked_as_json(route)
    return routes


def _refusals(unit: Unit, path: str, versions: str) -> list[Json]:
    """For requests without a unit that can be taken."""
    source = sources_of(unit)[0]
    told = {"response_headers_to_add": [_set("x-config-version", versions)]}
    wrong = f"{source.field} must be 1 to {MAX_UNIT_BYTES} bytes of UTF-8"
    if unit.jwt_claim is not None:
        wrong = f"{source.field} must be 1 to {MAX_UNIT_BYTES} bytes"
    if unit.cookie is not None:
        wrong = f"{source.field} must be 1 to {MAX_UNIT_BYTES} printable characters"
    kind = "the" if unit.jwt_claim is not None or unit.cookie is not None else "the header"
    lacking = f"{kind} {source.field} is required"
    return [
        {**_refuse({"path": path, "headers": [_POST, *source.present]}, 400, wrong, field=source.field), **told},
        {**_refuse({"path": path, "headers": [_POST]}, 400, lacking, field=source.field), **told},
    ]


def _cookie(name: str, *, secure: bool) -> Json:
    year_s = 365 * 86_400
    text = f"{name}=%REQ(x-request-id)%; Path=/; Max-Age={year_s}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
    return {"header": {"key": "set-cookie", "value": text}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}


def _not(match: Json) -> Json:
    return {**match, "invert_match": True, "treat_missing_header_as_empty": True}


def _asked_as_json(route: Json) -> tuple[Json, Json]:
    """The route, after one for bodies that curl calls a form unless told otherwise.

    No model takes forms, and TorchServe would decode this one and drop what it finds no name for.
    """
    match, added = route["match"], route["request_headers_to_add"]
    form = {
        **route,
        "match": {**match, "headers": [*match["headers"], _FORM]},
        "request_headers_to_add": [*added, _set("content-type", "application/json")],
    }
    return form, route


def _variants(experiment: Experiment, source: Source, limits: Limits) -> Json:
    clusters = [
        {
            "name": cluster_name(experiment, variant),
            "weight": weight,
            "request_headers_to_add": [_set(VERSION_HEADER, variant.version)],
            "response_headers_to_add": [_set("x-variant", variant.name), _set("x-model-version", variant.version)],
        }
        for variant, weight in zip(experiment.spec.variants, experiment.weights, strict=True)
    ]
    action: Json = {
        # treatments first, control last, weights of one fixed sum: a ramp then moves only the units that must move
        "weighted_clusters": {"clusters": clusters, "use_hash_policy": True},
        "hash_policy": [source.hash_policy(experiment.salt)],
        **_asking(experiment.spec.model, limits, num_retries=limits.num_retries),
    }
    copies = [(SHADOW, experiment.status.shadow), (NOISE, experiment.status.noise)]
    if mirrors := [_mirror(cluster, share) for cluster, share in copies if share > 0]:
        action["request_mirror_policies"] = mirrors
    return action


def _mirror(cluster: str, share: float) -> Json:
    millionths = {"numerator": round(share * 1_000_000), "denominator": "MILLION"}
    return {"cluster": cluster, "runtime_fraction": {"default_value": millionths}, "trace_sampled": False}


def _default_route(served: Served, path: str, limits: Limits) -> Json:
    return {
        "match": {"path": path, "headers": [_POST]},
        "route": {
            "cluster": default_cluster_name(served),
            **_asking(served.model, limits, num_retries=limits.num_retries),
        },
        "request_headers_to_add": [_set(VERSION_HEADER, served.version)],
        "response_headers_to_add": [
            _set("x-variant", "default"),
            _set("x-model-version", served.version),
            _set("x-config-version", default_config(served)),
        ],
    }


def default_config(served: Served) -> str:
    """What answers say of a version that no experiment has chosen."""
    return f"default-{served}"


def _metadata_routes(served: Served, cluster: str, limits: Limits) -> list[Json]:
    """The Open Inference Protocol's metadata of a model; all versions of one take and give the same tensors.

    It goes to no variant by weight, so it leaves no exposure.
    """
    path = f"/v2/models/{served.model}"
    told = [_set(VERSION_HEADER, served.version), _set(METADATA_HEADER, "1")]
    return [
        {
            "match": {"path": path, "headers": [_GET]},
            "route": {"cluster": cluster, **_asking(served.model, limits, num_retries=limits.num_retries)},
            "request_headers_to_add": told,
        },
        _only("GET", path),
    ]


def _fixed_routes(settings: Settings) -> list[Json]:
    # the router's own errors are said in its own words
    disabled = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    own = {BUSY_FILTER: disabled}
    free = open_to_all(settings.edge)
    inside: Json = {"route": {"cluster": OUTCOMES, "timeout": "5s"}, "typed_per_filter_config": own}
    # an event id counts once, so outcomes may be sent again whatever became of them
    again = {"retry_on": "connect-failure,refused-stream,reset", "num_retries": 2}
    taking = {"cluster": OUTCOMES, "timeout": "10s", "retry_policy": again}
    routes: list[Json] = [
        {"match": {"path": OUTCOMES_PATH, "headers": [_POST]}, **inside, "route": taking},
        _only("POST", OUTCOMES_PATH),
        {
            "match": {"path": "/livez", "headers": [_GET]},
            "direct_response": {"status": 200, "body": {"inline_string": '{"live":true}\n'}},
            "response_headers_to_add": [_set("content-type", "application/json")],
            "typed_per_filter_config": free,
        },
        {
            "match": {"path": "/v2", "headers": [_GET]},
            "direct_response": {"status": 200, "body": {"inline_string": _SERVER_METADATA}},
            "response_headers_to_add": [_set("content-type", "application/json")],
        },
        _only("GET", "/v2"),
    ]
    open_inside = {**inside, "typed_per_filter_config": {**own, **free}}
    routes += [{"match": {"path": path, "headers": [_GET]}, **open_inside} for path in OPEN_PATHS if path != "/livez"]
    routes.append({"match": {"safe_regex": {"regex": "/v2/models/[a-z0-9-]+/ready"}, "headers": [_GET]}, **inside})
    if settings.dashboard is not None:
        routes.append(
            {
                "match": {"path_separated_prefix": "/dashboard"},
                # a page that shows an experiment as it runs may stream
                "route": {"cluster": DASHBOARD, "timeout": "0s", "idle_timeout": "3600s"},
                "typed_per_filter_config": own,
            }
        )
    routes.append({**_refuse({"prefix": "/"}, 404, "nothing is served at this path"), "typed_per_filter_config": own})
    return routes


def _asking(model: str, limits: Limits, num_retries: int) -> Json:
    """How a model server is asked: under which path, how long, how often."""
    asking: Json = {
        # TorchServe knows versions on this path only; the chosen cluster's route has put its own into the header
        "path_rewrite": f"/predictions/{model}/%REQ({VERSION_HEADER})%",
        "timeout": f"{limits.timeout_s:g}s",
    }
    if num_retries:
        asking["retry_policy"] = {
            # 503: TorchServe's queue was full. 507, and now and then 500: its worker died with the batch. A handler's
            # own 500 cannot be told from that one, and is asked for again as well
            "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
            # now and then TorchServe forgets a request whose worker dies as it takes it: nobody would ever answer
            "per_try_timeout": f"{limits.timeout_s * _TRY_SHARE:g}s",
            "retriable_status_codes": [500, 503, 507],
            "num_retries": num_retries,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/"
                        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 3,
            "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
        }
    return asking


def _only(method: str, path: str, *headers: Json) -> Json:
    return {
        **_refuse({"path": path}, 405, f"only {method} is served at this path"),
        "response_headers_to_add": [_set("allow", method), *headers],
    }


def _exactly(header: str, value: str) -> Json:
    return {"name": header, "string_match": {"exact": value}}


def _refuse(match: Json, status: int, text: str, field: str | None = None) -> Json:
    route: Json = {"match": match, "direct_response": {"status": status, "body": {"inline_string": text}}}
    if field is not None:
        route["metadata"] = {"filter_metadata": {"emberline": {"field": field}}}
    return route


def _set(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
