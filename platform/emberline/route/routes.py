"""Envoy routes of models: which variant answers a request, after what cannot be answered was refused.

A path nobody promised is 404 (`own_routes`), so a model server's management can never be reached. Errors of the router
are plain sentences here; the listener turns them into JSON, with the field from the route's metadata.
"""

from emberline.assignment import MAX_UNIT_BYTES
from emberline.experiment import Experiment, Unit, Variant
from emberline.route.asking import asking
from emberline.route.clusters import NOISE, SHADOW, Json, cluster_name, default_cluster_name, served_variants
from emberline.route.headers import (
    CONFIG_HEADER,
    COPY_HEADER,
    EXPERIMENT_HEADER,
    METADATA_HEADER,
    MODEL_HEADER,
    UNIT_HEADER,
    VERSION_HEADER,
)
from emberline.route.own_routes import own_routes
from emberline.route.pieces import FORM, GET, POST, absent, exactly, only, refuse, set_header
from emberline.route.rates import UNIT_RATE_FILTER, unit_rate_limit
from emberline.route.settings import Limits, Served, Settings
from emberline.route.slices import HOLDOUT, by_layer, divided, routes_of
from emberline.route.units import Source, header_of, sources_of

MAIN = "emberline-main"
MIRRORED = "emberline-mirrored"


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
        described = _described(of_model[0])
        asked = Served(model, described.version)
        routes += _metadata_routes(asked, cluster_name(of_model[0], described), settings.limits)
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
                routes.append(only("POST", path, set_header("x-config-version", default_config(served))))
    routes += own_routes(settings)
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
    told = set_header("x-config-version", versions)

    def leaf(routes: tuple[Json, ...]) -> Json:
        return routes_of([*routes, *_refusals(unit, path, versions), only("POST", path, told)])

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
        set_header(CONFIG_HEADER, f"{HOLDOUT}-{settings.holdout}"),
        set_header(EXPERIMENT_HEADER, HOLDOUT),
        set_header(MODEL_HEADER, served.model),
        set_header(UNIT_HEADER, source.logged),
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
                "headers": [exactly(EXPERIMENT_HEADER, experiment.name), exactly(COPY_HEADER, copy)],
            },
            "route": {
                "cluster": cluster_name(experiment, variant),
                **asking(experiment.spec.model, settings.limits, num_retries=0),
            },
            "request_headers_to_add": [set_header(VERSION_HEADER, variant.version)],
        }
        for experiment in experiments  # with or without a shadow now: the last mirrored requests may still come
        for copy, variant in ((SHADOW, experiment.spec.treatment), (NOISE, experiment.spec.control))
        if Served(experiment.spec.model, variant.version) in settings.upstreams
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
        only("POST", path, set_header("x-config-version", version)),
    ]


def _variant_routes(experiment: Experiment, path: str, settings: Settings) -> list[Json]:
    routes: list[Json] = []
    sources = sources_of(experiment.spec.unit)
    for index, source in enumerate(sources):
        told = [set_header("x-config-version", experiment.config_version)]
        if source.cookie is not None:
            told.append(_cookie(source.cookie, secure=settings.edge.tls is not None))
        route: Json = {
            # a unit that is there and unusable is not replaced by another one
            "match": {
                "path": path,
                "headers": [
                    POST,
                    *source.usable,
                    *(absent(one) for earlier in sources[:index] for one in earlier.present),
                ],
            },
            "route": _variants(experiment, source, settings),
            "request_headers_to_add": [
                set_header(CONFIG_HEADER, experiment.config_version),
                set_header(EXPERIMENT_HEADER, experiment.name),
                set_header(MODEL_HEADER, experiment.spec.model),
                set_header(UNIT_HEADER, source.logged),
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
    told = {"response_headers_to_add": [set_header("x-config-version", versions)]}
    wrong = f"{source.field} must be 1 to {MAX_UNIT_BYTES} bytes of UTF-8"
    if unit.jwt_claim is not None:
        wrong = f"{source.field} must be 1 to {MAX_UNIT_BYTES} bytes"
    if unit.cookie is not None:
        wrong = f"{source.field} must be 1 to {MAX_UNIT_BYTES} printable characters"
    kind = "the" if unit.jwt_claim is not None or unit.cookie is not None else "the header"
    lacking = f"{kind} {source.field} is required"
    return [
        {**refuse({"path": path, "headers": [POST, *source.present]}, 400, wrong, field=source.field), **told},
        {**refuse({"path": path, "headers": [POST]}, 400, lacking, field=source.field), **told},
    ]


def _cookie(name: str, *, secure: bool) -> Json:
    year_s = 365 * 86_400
    text = f"{name}=%REQ(x-request-id)%; Path=/; Max-Age={year_s}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
    return {"header": {"key": "set-cookie", "value": text}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}


def _asked_as_json(route: Json) -> tuple[Json, Json]:
    """The route, after one for bodies that curl calls a form unless told otherwise.

    No model takes forms, and TorchServe would decode this one and drop what it finds no name for.
    """
    match, added = route["match"], route["request_headers_to_add"]
    form = {
        **route,
        "match": {**match, "headers": [*match["headers"], FORM]},
        "request_headers_to_add": [*added, set_header("content-type", "application/json")],
    }
    return form, route


def _variants(experiment: Experiment, source: Source, settings: Settings) -> Json:
    clusters = [
        {
            "name": cluster_name(experiment, variant),
            "weight": weight,
            "request_headers_to_add": [set_header(VERSION_HEADER, variant.version)],
            "response_headers_to_add": [
                set_header("x-variant", variant.name),
                set_header("x-model-version", variant.version),
            ],
        }
        for variant, weight in served_variants(experiment, settings)
    ]
    limits = settings.limits
    action: Json = {
        # treatments first, control last, weights of one fixed sum: a ramp then moves only the units that must move
        "weighted_clusters": {"clusters": clusters, "use_hash_policy": True},
        "hash_policy": [source.hash_policy(experiment.salt)],
        **asking(experiment.spec.model, limits, num_retries=limits.num_retries),
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
        "match": {"path": path, "headers": [POST]},
        "route": {
            "cluster": default_cluster_name(served),
            **asking(served.model, limits, num_retries=limits.num_retries),
        },
        "request_headers_to_add": [set_header(VERSION_HEADER, served.version)],
        "response_headers_to_add": [
            set_header("x-variant", "default"),
            set_header("x-model-version", served.version),
            set_header("x-config-version", default_config(served)),
        ],
    }


def default_config(served: Served) -> str:
    """What answers say of a version that no experiment has chosen."""
    return f"default-{served}"


def _described(experiment: Experiment) -> Variant:
    """The variant that tells the metadata of its model: the control, or the one that took its place."""
    return experiment.spec.treatment if experiment.status.phase == "Shipped" else experiment.spec.control


def _metadata_routes(served: Served, cluster: str, limits: Limits) -> list[Json]:
    """The Open Inference Protocol's metadata of a model; all versions of one take and give the same tensors.

    It goes to no variant by weight, so it leaves no exposure.
    """
    path = f"/v2/models/{served.model}"
    told = [set_header(VERSION_HEADER, served.version), set_header(METADATA_HEADER, "1")]
    return [
        {
            "match": {"path": path, "headers": [GET]},
            "route": {"cluster": cluster, **asking(served.model, limits, num_retries=limits.num_retries)},
            "request_headers_to_add": told,
        },
        only("GET", path),
    ]
