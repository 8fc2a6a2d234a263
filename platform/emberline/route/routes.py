"""Envoy routes: which variant answers a request, and what is refused before any variant sees it.

A path nobody promised is 404, so a model server's management can never be reached. Errors of the router itself are
plain sentences here; the listener turns them into JSON, with the field from the route's metadata.
"""

import json
from typing import Any

from emberline import __version__
from emberline.assignment import MAX_UNIT_BYTES
from emberline.experiment import TOTAL_WEIGHT, Experiment
from emberline.route.clusters import DASHBOARD, OUTCOMES, SHADOW, Json, cluster_name, default_cluster_name
from emberline.route.settings import Limits, Served, Settings

MAIN = "emberline-main"
MIRRORED = "emberline-mirrored"
BUSY_FILTER = "envoy.filters.http.custom_response"
# what the log says of a request travels with it in these; clients cannot set them, the listener removes theirs
CONFIG_HEADER = "x-ember-config"
EXPERIMENT_HEADER = "x-ember-experiment"
UNIT_HEADER = "x-ember-unit"
MODEL_HEADER = "x-ember-model"
VERSION_HEADER = "x-ember-version"
INTERNAL_HEADERS = (CONFIG_HEADER, EXPERIMENT_HEADER, UNIT_HEADER, MODEL_HEADER, VERSION_HEADER)

# Envoy matches bytes, not characters; so both the length and this are of bytes (surrogates are no UTF-8)
_UTF8 = (
    r"[\x01-\x7f]"
    r"|[\xc2-\xdf][\x80-\xbf]"
    r"|\xe0[\xa0-\xbf][\x80-\xbf]"
    r"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    r"|\xed[\x80-\x9f][\x80-\xbf]"
    r"|\xf0[\x90-\xbf][\x80-\xbf]{2}"
    r"|[\xf1-\xf3][\x80-\xbf]{3}"
    r"|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_SERVER_METADATA = json.dumps({"name": "emberline", "version": __version__, "extensions": []}) + "\n"
# of the time for a request: as long as one try may take, so that another one can follow
_TRY_SHARE = 0.45
_POST: Json = {"name": ":method", "string_match": {"exact": "POST"}}
_FORM: Json = {
    "name": "content-type",
    "string_match": {"prefix": "application/x-www-form-urlencoded", "ignore_case": True},
}
_GET: Json = {"name": ":method", "string_match": {"exact": "GET"}}


def render_routes(experiments: tuple[Experiment, ...], settings: Settings) -> Json:
    """The route configuration of the listener that clients reach."""
    routes: list[Json] = []
    taken = {experiment.spec.model for experiment in experiments}
    for experiment in experiments:
        for path in model_paths(experiment.spec.model):
            routes += _experiment_routes(experiment, path, settings.limits)
        control = experiment.spec.control
        served = Served(experiment.spec.model, control.version)
        routes += _metadata_routes(served, cluster_name(experiment, control), settings.limits)
    for model, version in sorted(settings.defaults.items()):
        if model not in taken:
            for path in model_paths(model):
                default = _default_route(Served(model, version), path, settings.limits)
                routes += [*_asked_as_json(default), _only("POST", path)]
            served = Served(model, version)
            routes += _metadata_routes(served, default_cluster_name(served), settings.limits)
    routes += _fixed_routes(settings)
    return {"name": MAIN, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}


def render_mirrored_routes(experiments: tuple[Experiment, ...], settings: Settings) -> Json:
    """The route configuration of the listener inside Envoy that answers mirrored requests with the treatment."""
    routes: list[Json] = [
        {
            # by experiment and not by path: a mirrored request carries the path that the first version was asked under
            "match": {
                "prefix": "/",
                "headers": [{"name": EXPERIMENT_HEADER, "string_match": {"exact": experiment.name}}],
            },
            "route": {
                "cluster": cluster_name(experiment, experiment.spec.treatment),
                **_asking(experiment.spec.model, settings.limits, num_retries=0),
            },
            "request_headers_to_add": [_set(VERSION_HEADER, experiment.spec.treatment.version)],
        }
        for experiment in experiments  # with or without a shadow now: the last mirrored requests may still come
    ]
    return {"name": MIRRORED, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}


def model_paths(model: str) -> tuple[str, str]:
    """TorchServe's path, and the Open Inference Protocol's."""
    return f"/predictions/{model}", f"/v2/models/{model}/infer"


def _experiment_routes(experiment: Experiment, path: str, limits: Limits) -> list[Json]:
    header = experiment.spec.unit.header
    usable: list[Json] = [
        {"name": header, "string_match": {"safe_regex": {"regex": f".{{1,{MAX_UNIT_BYTES}}}"}}},
        {"name": header, "string_match": {"safe_regex": {"regex": f"({_UTF8})+"}}},
    ]
    told = {"response_headers_to_add": [_set("x-config-version", experiment.config_version)]}
    return [
        *_asked_as_json(
            {
                "match": {"path": path, "headers": [_POST, *usable]},
                "route": _variants(experiment, limits),
                "request_headers_to_add": [
                    _set(CONFIG_HEADER, experiment.config_version),
                    _set(EXPERIMENT_HEADER, experiment.name),
                    _set(MODEL_HEADER, experiment.spec.model),
                    _set(UNIT_HEADER, f"%REQ({header})%"),
                ],
                **told,
            }
        ),
        {
            **_refuse(
                {"path": path, "headers": [_POST, {"name": header, "present_match": True}]},
                400,
                f"{header} must be 1 to {MAX_UNIT_BYTES} bytes of UTF-8",
                field=header,
            ),
            **told,
        },
        {**_refuse({"path": path, "headers": [_POST]}, 400, f"the header {header} is required", field=header), **told},
        # a GET tells which configuration is in force, and costs no model anything
        _only("POST", path, *told["response_headers_to_add"]),
    ]


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


def _variants(experiment: Experiment, limits: Limits) -> Json:
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
        "hash_policy": [
            {
                "header": {
                    "header_name": experiment.spec.unit.header,
                    "regex_rewrite": {
                        "pattern": {"regex": "^(.*)$"},
                        "substitution": _escaped(experiment.salt) + r":\1",
                    },
                }
            }
        ],
        **_asking(experiment.spec.model, limits, num_retries=limits.num_retries),
    }
    if experiment.status.shadow > 0:
        share = {"numerator": round(experiment.status.shadow * TOTAL_WEIGHT * 100), "denominator": "MILLION"}
        action["request_mirror_policies"] = [
            {"cluster": SHADOW, "runtime_fraction": {"default_value": share}, "trace_sampled": False}
        ]
    return action


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
            _set("x-config-version", f"default-{served}"),
        ],
    }


def _metadata_routes(served: Served, cluster: str, limits: Limits) -> list[Json]:
    """The Open Inference Protocol's metadata of a model; all versions of one take and give the same tensors.

    It goes to no variant by weight, so it leaves no exposure.
    """
    path = f"/v2/models/{served.model}"
    asking = {**_asking(served.model, limits, num_retries=limits.num_retries)}
    asking["path_rewrite"] = f"/predictions/{served.model}/{served.version}?oip-metadata"
    return [{"match": {"path": path, "headers": [_GET]}, "route": {"cluster": cluster, **asking}}, _only("GET", path)]


def _fixed_routes(settings: Settings) -> list[Json]:
    # the router's own errors are said in its own words
    own = {BUSY_FILTER: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}
    inside: Json = {"route": {"cluster": OUTCOMES, "timeout": "5s"}, "typed_per_filter_config": own}
    routes: list[Json] = [
        {"match": {"path": "/v1/outcomes", "headers": [_POST]}, **inside},
        _only("POST", "/v1/outcomes"),
        {
            "match": {"path": "/livez", "headers": [_GET]},
            "direct_response": {"status": 200, "body": {"inline_string": '{"live":true}\n'}},
            "response_headers_to_add": [_set("content-type", "application/json")],
        },
        {
            "match": {"path": "/v2", "headers": [_GET]},
            "direct_response": {"status": 200, "body": {"inline_string": _SERVER_METADATA}},
            "response_headers_to_add": [_set("content-type", "application/json")],
        },
        _only("GET", "/v2"),
    ]
    ready: list[Json] = [{"path": "/readyz"}, {"path": "/v2/health/live"}, {"path": "/v2/health/ready"}]
    ready.append({"safe_regex": {"regex": "/v2/models/[a-z0-9-]+/ready"}})
    routes += [{"match": {**match, "headers": [_GET]}, **inside} for match in ready]
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


def _refuse(match: Json, status: int, text: str, field: str | None = None) -> Json:
    route: Json = {"match": match, "direct_response": {"status": status, "body": {"inline_string": text}}}
    if field is not None:
        route["metadata"] = {"filter_metadata": {"emberline": {"field": field}}}
    return route


def _set(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _escaped(text: str) -> str:
    r"""A text that stands for itself in an RE2 substitution, where `\1` is a group."""
    return text.replace("\\", "\\\\")
