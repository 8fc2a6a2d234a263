"""Envoy's bootstrap: the listener that clients reach, those inside for shadows, and what they log.

It stays the same while a router runs; routes and clusters come from files that are replaced under it.
"""

from pathlib import Path

from emberline.route.clusters import DASHBOARD, NOISE, OUTCOMES, SHADOW, TYPE, Json, copies_cluster, inside_cluster
from emberline.route.edge import auth_filters, tls_socket
from emberline.route.headers import (
    CONFIG_HEADER,
    COPY_HEADER,
    EXPERIMENT_HEADER,
    INTERNAL_HEADERS,
    MODEL_HEADER,
    UNIT_HEADER,
)
from emberline.route.own_routes import BUSY_FILTER, OUTCOMES_PATH
from emberline.route.rates import rate_limit, unit_rate_filter
from emberline.route.routes import MAIN, MIRRORED
from emberline.route.samples import tap
from emberline.route.settings import CLAIM_HEADER, Address, Settings
from emberline.route.units import COOKIE_FILTER, COOKIE_TYPE

# `serve` puts it on what a handler itself answered with a status of its own
ANSWERED_HEADER = "x-answered-by"
_MOST_STREAMS = 100
CDS, RDS, MIRRORED_RDS = "cds.json", "rds.json", "mirrored.json"

# one line a request that a variant got; exposure.parse_line reads it
LOG_FORMAT = {
    "time": "%START_TIME(%s.%6f)%",
    "experiment": f"%REQ({EXPERIMENT_HEADER})%",
    "config_version": f"%REQ({CONFIG_HEADER})%",
    "unit": f"%REQ({UNIT_HEADER})%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "model": f"%REQ({MODEL_HEADER})%",
    "variant": "%METADATA(CLUSTER:emberline:variant)%",
    "version": "%METADATA(CLUSTER:emberline:version)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "latency_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "duration_ms": "%DURATION%",
    "label": "%DYNAMIC_METADATA(emberline:label)%",
    "score": "%DYNAMIC_METADATA(emberline:score)%",
}


def render_bootstrap(settings: Settings, folder: Path, log: Path, admin: Address, inside: Address) -> Json:
    """The bootstrap document.

    Args:
        folder: watched for the files CDS, RDS and MIRRORED_RDS.
        log: access log of requests that a variant got.
        admin: Envoy's own address, loopback only.
        inside: the router's own HTTP endpoint (outcomes, readiness).
    """
    clusters = [inside_cluster(OUTCOMES, inside), *(copies_cluster(name, settings.limits) for name in (SHADOW, NOISE))]
    if settings.dashboard is not None:
        clusters.append(inside_cluster(DASHBOARD, settings.dashboard))
    return {
        "node": {"id": "emberline-route", "cluster": "emberline"},
        "admin": {"address": _socket(admin)},
        "dynamic_resources": {"cds_config": _watched(folder, CDS)},
        "static_resources": {
            "listeners": [
                _main_listener(settings, folder, log),
                *(_copies_listener(name, settings, folder, log) for name in (SHADOW, NOISE)),
            ],
            "clusters": clusters,
        },
        "layered_runtime": {
            # the pattern for the length of a unit's id is longer than Envoy expects of patterns
            "layers": [{"name": "emberline", "static_layer": {"re2.max_program_size.error_level": 2000}}]
        },
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {"@type": f"{TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener"},
            }
        ],
    }


def _main_listener(settings: Settings, folder: Path, log: Path) -> Json:
    limits = settings.limits
    # the body first: an answer before its end has Envoy reset an HTTP/2 stream, and clients lose the answer with it
    filters = [_busy_replies(), _buffer(limits.max_body_bytes), *auth_filters(settings.edge)]
    if limits.requests_per_s is not None:
        filters.append(rate_limit(max(1, limits.requests_per_s // settings.processes)))
    if limits.unit_requests_per_s is not None:
        filters.append(unit_rate_filter())
    # routes with units by cookie bring its rules
    cookies = {"name": COOKIE_FILTER, "typed_config": {"@type": COOKIE_TYPE}}
    filters += [cookies, _answer_to_metadata(), _router()]
    connections: Json = {
        **_http("main", MAIN, _watched(folder, RDS), log, shadow=False),
        # each may have the router hold a whole body, who has no key among them
        "http2_protocol_options": {"max_concurrent_streams": _MOST_STREAMS},
        "use_remote_address": True,
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        # no client is trusted with the key that joins answers, shadows and outcomes: ids are always the router's own
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "request_timeout": f"{limits.slow_client_s:g}s",
        "request_headers_timeout": "10s",
        "stream_idle_timeout": f"{limits.slow_client_s + limits.timeout_s:g}s",
        "http_filters": filters,
        "local_reply_config": _error_replies(),
        "early_header_mutation_extensions": [
            _mutate(
                [{"remove": name} for name in _nobody_sets(settings)] + [_first(name) for name in settings.unit_headers]
            )
        ],
        "normalize_path": True,
        "merge_slashes": True,
        # before dots are resolved and routes are matched, so it leads nowhere that a plain slash would not
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    }
    return {
        "name": "main",
        "address": _socket(settings.listen),
        "per_connection_buffer_limit_bytes": limits.max_body_bytes,
        "filter_chains": [{"filters": [_network_filter(connections)], **tls_socket(settings.edge.tls, folder)}],
    }


def _nobody_sets(settings: Settings) -> list[str]:
    """Headers that are this router's own."""
    tokens = settings.edge.tokens
    return [*INTERNAL_HEADERS, *(CLAIM_HEADER + claim for claim in (tokens.claims if tokens else ()))]


def _first(name: str) -> Json:
    """Of a header that was sent twice, the first: Envoy hashes all and logs one, and a unit must be one text."""
    return {"append": {"header": {"key": name, "value": f"%REQ({name})%"}, "append_action": "OVERWRITE_IF_EXISTS"}}


def _copies_listener(name: str, settings: Settings, folder: Path, log: Path) -> Json:
    """The listener behind one mirror; it says which of them it is, since a mirror changes no header."""
    taps = [tap(settings.taps, settings.limits.max_body_bytes)] if settings.taps and name == SHADOW else []
    marked = {"append": {"header": {"key": COPY_HEADER, "value": name}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    connections = {
        **_http(name, MIRRORED, _watched(folder, MIRRORED_RDS), log, shadow=True),
        "early_header_mutation_extensions": [_mutate([marked])],
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "http_filters": [*taps, _answer_to_metadata(), _router()],
    }
    return {
        "name": name,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": settings.limits.max_body_bytes,
        "filter_chains": [{"filters": [_network_filter(connections)]}],
    }


def _http(stat_prefix: str, routes: str, source: Json, log: Path, *, shadow: bool) -> Json:
    return {
        "stat_prefix": stat_prefix,
        "codec_type": "AUTO",
        "rds": {"route_config_name": routes, "config_source": source},
        "access_log": [_access_log(log, shadow=shadow)],
        # the tracer would change a digit of the id, and the two sides of a pair would not meet
        "request_id_extension": {
            "typed_config": {
                "@type": f"{TYPE}.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "pack_trace_reason": False,
            }
        },
    }


def _network_filter(connections: Json) -> Json:
    name = f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": {"@type": name, **connections}}


def _access_log(path: Path, *, shadow: bool) -> Json:
    return {
        "name": "envoy.access_loggers.file",
        # only requests that were given to a variant carry this header; what the edge refused is no exposure
        "filter": {"header_filter": {"header": {"name": CONFIG_HEADER, "present_match": True}}},
        "typed_config": {
            "@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": {**LOG_FORMAT, "shadow": shadow}},
        },
    }


def _answer_to_metadata() -> Json:
    """Label and score of an answer, for the log."""

    def rule(key: str) -> Json:
        return {
            "selectors": [{"key": key}],
            "on_present": {"metadata_namespace": "emberline", "key": key},
        }

    return {
        "name": "envoy.filters.http.json_to_metadata",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
            "response_rules": {"rules": [rule("label"), rule("score")]},
        },
    }


def _buffer(max_bytes: int) -> Json:
    return {
        "name": "envoy.filters.http.buffer",
        "typed_config": {"@type": f"{TYPE}.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": max_bytes},
    }


def _router() -> Json:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True},
    }


def _busy_replies() -> Json:
    """TorchServe's 503 (a full queue says "has no worker") and 507 (its worker died) tell when to come back, as 503.

    So does its 404: a version that the router knows and TorchServe does not will be there in a moment, as after a
    restart. A handler's own 404 carries ANSWERED_HEADER and is passed on. Its 413 has no body; it gets ours.
    """
    retry_later = {
        "name": "retry-later",
        "typed_config": {
            "@type": f"{TYPE}.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy",
            "status_code": 503,
            "response_headers_to_add": [_retry_after()],
        },
    }

    too_large = {
        "name": "too-large",
        "typed_config": {
            "@type": f"{TYPE}.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy",
            "status_code": 413,
        },
    }

    def matcher(status: str, action: Json) -> Json:
        code = {
            "name": "status",
            "typed_config": {"@type": f"{TYPE}.type.matcher.v3.HttpResponseStatusCodeMatchInput"},
        }
        return {
            "predicate": {"single_predicate": {"input": code, "value_match": {"exact": status}}},
            "on_match": {"action": action},
        }

    answered = {
        "name": "answered",
        "typed_config": {
            "@type": f"{TYPE}.type.matcher.v3.HttpResponseHeaderMatchInput",
            "header_name": ANSWERED_HEADER,
        },
    }
    by_handler = {"single_predicate": {"input": answered, "value_match": {"prefix": "handler"}}}
    unknown = matcher("404", retry_later)
    unknown["predicate"] = {"and_matcher": {"predicate": [unknown["predicate"], {"not_matcher": by_handler}]}}

    return {
        "name": BUSY_FILTER,
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.custom_response.v3.CustomResponse",
            "custom_response_matcher": {
                "matcher_list": {
                    "matchers": [
                        matcher("503", retry_later),
                        matcher("507", retry_later),
                        matcher("413", too_large),
                        unknown,
                    ]
                }
            },
        },
    }


def _retry_after() -> Json:
    return {"header": {"key": "retry-after", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _error_replies() -> Json:
    """Errors that Envoy answers itself, as JSON like our handlers': `error`, and `field` where one is wrong."""
    of_route = "%METADATA(ROUTE:emberline:field)%"

    def mapper(condition: Json, text: str | None = None, *, field: str = of_route, retry_after: bool = False) -> Json:
        names = {"error": "%LOCAL_REPLY_BODY%", "field": field, "request_id": "%REQ(X-REQUEST-ID)%"}
        mapped: Json = {
            "filter": condition,
            "body_format_override": {"json_format": names, "omit_empty_values": True},
        }
        if text is not None:
            mapped["body"] = {"inline_string": text}
        if retry_after:
            mapped["headers_to_add"] = [_retry_after()]
        return mapped

    return {
        "mappers": [
            mapper(_flags("UO"), "too many requests are in flight; try again", retry_after=True),
            mapper(_of_outcomes("UF", "UH", "UC"), "outcomes are not taken at the moment; try again", retry_after=True),
            mapper(_of_outcomes("UT"), "the outcomes were not written in time; send them again"),
            mapper(_flags("UF", "UH", "UC"), "no server of this version answers; try again", retry_after=True),
            mapper(_flags("UT"), "the model did not answer in time"),
            mapper(_status(401), "who asks is not known: a key or a token that counts is required"),
            mapper(_status(403), "the token is meant for somebody else"),
            # whatever the route finds wrong: the body's length is looked at before
            mapper(_status(413), "the request's body is larger than this router takes", field="body"),
            mapper(_status(429), "too many requests; try again", retry_after=True),
            mapper(_status(503), "the model has no free worker; try again", retry_after=True),
            mapper(_too_wrong_for_an_id(), "the request is malformed: its path or its headers are no valid HTTP"),
            mapper(_status(400, "GE")),
        ]
    }


def _too_wrong_for_an_id() -> Json:
    """A 400 of Envoy's own, before it gave the request an id: it says nothing why."""
    nameless = {"header_filter": {"header": {"name": "x-request-id", "present_match": False}}}
    return {"and_filter": {"filters": [_status(400), nameless]}}


def _of_outcomes(*flags: str) -> Json:
    path = {"header_filter": {"header": {"name": ":path", "string_match": {"prefix": OUTCOMES_PATH}}}}
    return {"and_filter": {"filters": [_flags(*flags), path]}}


def _flags(*flags: str) -> Json:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(code: int, comparison: str = "EQ") -> Json:
    value = {"default_value": code, "runtime_key": "emberline.never_set"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


def _mutate(mutations: list[Json]) -> Json:
    """Before routes are matched."""
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{TYPE}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": mutations,
        },
    }


def _watched(folder: Path, name: str) -> Json:
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(folder / name), "watched_directory": {"path": str(folder)}},
    }


def _socket(address: Address) -> Json:
    return {"socket_address": {"address": address.host, "port_value": address.port}}
