"""Whether routers have taken a configuration, and what they still have in flight.

Three witnesses, the best one that is there: Envoy's own dump of its routes; the `x-config-version` header of an answer
that costs no model anything; else the first exposure under the new configuration, which proves it too, but later.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import httpx

from emberline.compare.reread import read_rows
from emberline.errors import EmberlineError
from emberline.experiment import Experiment
from emberline.route.clusters import OUTCOMES

_TIMEOUT_S = 5.0


def has_taken(experiment: Experiment, *, admin: str | None, route: str | None, data: Path, decided_at: float) -> bool:
    """Whether the experiment's current configuration is in force.

    Args:
        admin: address of Envoy's admin interface; of a router with several processes, all of them.
        route: address that clients use.
        decided_at: Unix time before which no exposure can be of this configuration.

    Raises:
        EmberlineError: a router was given and does not answer.
    """
    if admin is not None:
        return all(experiment.config_version in versions for versions in _told(admin))
    if route is not None:
        answer = _get(f"{route.rstrip('/')}/predictions/{experiment.spec.model}", "the router")
        if (versions := answer.headers.get("x-config-version")) is not None:
            return experiment.config_version in versions.split(", ")
    return _was_exposed(experiment, data, decided_at)


def answers_by_default(model: str, version: str, *, admin: str) -> bool:
    """Whether all processes of the router send units that no experiment has to this version."""
    return all(f"default-{model}@{version}" in versions for versions in _told(admin))


def has_deployed(model: str, version: str, *, admin: str | None, route: str | None) -> bool:
    """The same of whichever address is known; True where none is, since then nobody can tell."""
    if admin is not None:
        return answers_by_default(model, version, admin=admin)
    return route is None or version_in_force(model, admin=None, route=route) == version


def version_in_force(model: str, *, admin: str | None, route: str | None) -> str:
    """The version that answers units that no experiment has, as the router tells it; empty where it has none."""
    told: set[str] = set()
    if route is not None:
        answer = _get(f"{route.rstrip('/')}/predictions/{model}", "the router")
        told = set(answer.headers.get("x-config-version", "").split(", "))
    elif admin is not None:
        told = _told(admin)[0]
    prefix = f"default-{model}@"
    return next((one.removeprefix(prefix) for one in sorted(told) if one.startswith(prefix)), "")


def refused_files(*, admin: str | None, route: str | None) -> frozenset[str]:
    """Files of the folder of experiments that the router cannot use as they are.

    None where it does not tell: it is not ready, only its admin address is known, on another machine, or something else
    answers in its place.
    """
    address = route.rstrip("/") if route is not None else _inside(admin)
    if address is None:
        return frozenset()
    try:
        answer = _get(f"{address}/readyz", "the router")
    except EmberlineError:
        if route is not None:
            raise
        return frozenset()  # an admin address may be forwarded from where the router's own one means nothing
    is_json = answer.is_success and answer.headers.get("content-type", "").startswith("application/json")
    told = answer.json() if is_json else None
    return frozenset(told.get("refused", ())) if isinstance(told, dict) else frozenset()


def _inside(admin: str | None) -> str | None:
    """Address of the router's own endpoint, as its Envoy knows it."""
    if admin is None:
        return None
    told = _get(f"{processes(admin)[0]}/clusters?format=json", "Envoy's admin interface").json()
    for cluster in told.get("cluster_statuses", ()):
        for host in cluster.get("host_statuses", ()) if cluster.get("name") == OUTCOMES else ():
            at = host["address"]["socket_address"]
            return f"http://{at['address']}:{at['port_value']}"
    return None


def _told(admin: str) -> list[set[str]]:
    """Of each process of the router, the configuration versions that its routes tell clients."""
    told = []
    for address in processes(admin):
        dump = _get(f"{address}/config_dump?resource=dynamic_route_configs", "Envoy's admin interface").json()
        told.append({version for value in _values(dump, "x-config-version") for version in value.split(", ")})
    return told


def _values(node: Any, header: str) -> Iterator[str]:
    """What a header is set to, anywhere in a dump."""
    if isinstance(node, list):
        for child in node:
            yield from _values(child, header)
    elif isinstance(node, dict):
        if node.get("key") == header and isinstance(node.get("value"), str):
            yield node["value"]
        for child in node.values():
            yield from _values(child, header)


def processes(admin: str) -> list[str]:
    """Admin addresses of a router, one a process: as `state/route.json` has them, with commas between."""
    return [address.strip().rstrip("/") for address in admin.split(",")]


def num_active(admin: str, cluster: str) -> int:
    """Requests that the router has in flight to one cluster."""
    name = f"cluster.{cluster}.upstream_rq_active"
    return sum(_stats(address, "upstream_rq_active$").get(name, 0) for address in processes(admin))


def num_routed(admin: str, clusters: Mapping[str, str]) -> dict[str, int]:
    """Requests that each process of the router has sent to each variant since it started, retries not counted.

    Args:
        clusters: their names by variant.

    Returns:
        By variant for the first process, by `variant#1` for the second and so on: each begins at 0 when restarted.
    """
    found = {}
    for number, address in enumerate(processes(admin)):
        values = _stats(address, "upstream_rq_(total|retry)$")
        for variant, name in clusters.items():
            sent = values.get(f"cluster.{name}.upstream_rq_total", 0)
            again = values.get(f"cluster.{name}.upstream_rq_retry", 0)
            found[f"{variant}#{number}" if number else variant] = sent - again
    return found


def _stats(address: str, pattern: str) -> dict[str, int]:
    answer = _get(f"{address}/stats?format=json&filter={pattern}", "Envoy's admin interface")
    return {entry["name"]: int(entry["value"]) for entry in answer.json()["stats"] if "value" in entry}


def _was_exposed(experiment: Experiment, data: Path, decided_at: float) -> bool:
    named = {"version": experiment.config_version, "at": int(decided_at * 1e6)}

    def look() -> bool:
        paths = (data / "exposures").glob("part=*/*.parquet")
        files = [str(path) for path in paths if path.stat().st_mtime >= decided_at]
        if not files:
            return False
        query = "SELECT 1 FROM read_parquet($files) WHERE config_version = $version AND time_us >= $at LIMIT 1"
        with duckdb.connect(":memory:") as connection:
            return connection.execute(query, {"files": files, **named}).fetchone() is not None

    return read_rows(data, look)


def _get(url: str, what: str) -> httpx.Response:
    try:
        return httpx.get(url, timeout=_TIMEOUT_S)
    except httpx.TransportError as error:
        raise EmberlineError(f"{what} does not answer: {error}", place=url, hint="is `emberline route` up?") from error
