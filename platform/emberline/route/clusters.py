"""Envoy clusters: one for each (experiment, variant), so that their statistics, limits and drains stay apart.

A cluster's metadata say which variant and version it is, so the log of a request tells who was really asked.
"""

from typing import Any

from emberline.experiment import Experiment, Variant
from emberline.route.settings import Address, Limits, Served, Settings

TYPE = "type.googleapis.com/envoy"
OUTCOMES = "emberline-inside"
DASHBOARD = "emberline-dashboard"
SHADOW, NOISE = "emberline-shadow", "emberline-noise"
"""Clusters of the listeners inside Envoy, which are called the same: copies for the treatment, and for the control."""

INSIDE_IDLE_S = 2
"""How long a connection to the router's own endpoints is kept for the next request; less than they keep theirs."""
_UPSTREAM_HTTP = "envoy.extensions.upstreams.http.v3"

Json = dict[str, Any]


def cluster_name(experiment: Experiment, variant: Variant) -> str:
    """Cluster of a variant, as Envoy's statistics call it: `digits-int8/int8@1.1`.

    The version is part of it: another version is another cluster, and requests under way stay with the one they chose.
    """
    return f"{experiment.name}/{variant.name}@{variant.version}"


def default_cluster_name(served: Served) -> str:
    """Cluster of a model's version while no experiment is on: `digits@1.0`."""
    return str(served)


def served_variants(experiment: Experiment, settings: Settings) -> list[tuple[Variant, int]]:
    """Variants with their weights, treatments first; without one that has ended and is served no more."""
    weighted = zip(experiment.spec.variants, experiment.weights, strict=True)
    model = experiment.spec.model
    return [(variant, weight) for variant, weight in weighted if Served(model, variant.version) in settings.upstreams]


def render_clusters(experiments: tuple[Experiment, ...], settings: Settings) -> list[Json]:
    """All clusters that routes to these experiments may name, by name."""
    clusters = [
        _model_cluster(
            default_cluster_name(served), address, settings.limits, {"variant": "default", "version": served.version}
        )
        for served, address in settings.upstreams.items()
        if settings.defaults.get(served.model) == served.version
    ]
    for experiment in experiments:
        for variant, _ in served_variants(experiment, settings):
            served = Served(experiment.spec.model, variant.version)
            facts = {"experiment": experiment.name, "variant": variant.name, "version": variant.version}
            address = settings.upstreams[served]
            clusters.append(_model_cluster(cluster_name(experiment, variant), address, settings.limits, facts))
    return sorted(clusters, key=lambda cluster: str(cluster["name"]))


def inside_cluster(name: str, address: Address) -> Json:
    """A cluster of the router's own: the outcomes endpoint or the dashboard."""
    return {
        "name": name,
        # this machine's own processes: busy at worst, so they are given their time
        "connect_timeout": "5s",
        **_endpoint(name, address),
        "typed_extension_protocol_options": {
            f"{_UPSTREAM_HTTP}.HttpProtocolOptions": {
                "@type": f"{TYPE}.{_UPSTREAM_HTTP.removeprefix('envoy.')}.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                # before their server would: a request sent as it closes the connection is lost
                "common_http_protocol_options": {"idle_timeout": f"{INSIDE_IDLE_S}s"},
            }
        },
    }


def copies_cluster(name: str, limits: Limits) -> Json:
    """Where mirrored requests go: a listener inside Envoy that picks the version, since a mirror cannot."""
    share = max(1, limits.max_requests // 4)
    return {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {
                                    "envoy_internal_address": {
                                        "server_listener_name": name,
                                        "endpoint_id": name,
                                    }
                                }
                            }
                        }
                    ]
                }
            ],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.internal_upstream",
            "typed_config": {
                "@type": f"{TYPE}.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
                "transport_socket": {
                    "name": "envoy.transport_sockets.raw_buffer",
                    "typed_config": {"@type": f"{TYPE}.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
                },
            },
        },
        # shadows are shed first: a quarter of what a variant may have in flight
        "circuit_breakers": {
            "thresholds": [{"max_requests": share, "max_pending_requests": share, "max_connections": share}]
        },
    }


def _model_cluster(name: str, address: Address, limits: Limits, facts: dict[str, str]) -> Json:
    return {
        "name": name,
        "connect_timeout": "1s",
        **_endpoint(name, address),
        "metadata": {"filter_metadata": {"emberline": facts}},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": limits.max_requests,
                    "max_pending_requests": max(1, limits.max_requests // 4),
                    "max_requests": limits.max_requests,
                    # retries must not double the load of a model that is already slow; but all of a batch or two, whose
                    # worker died, may be asked for again
                    "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 64},
                }
            ]
        },
    }


def _endpoint(name: str, address: Address) -> Json:
    socket = {"socket_address": {"address": address.host, "port_value": address.port}}
    return {
        "type": "STATIC" if address.is_ip else "STRICT_DNS",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket}}]}],
        },
    }
