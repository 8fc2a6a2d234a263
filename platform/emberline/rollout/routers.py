"""Whether routers have taken a configuration, and what they still have in flight.

Three witnesses, the best one that is there: Envoy's own dump of its routes; the `x-config-version` header of an answer
that costs no model anything; else the first exposure under the new configuration, which proves it too, but later.
"""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import httpx

from emberline.errors import EmberlineError
from emberline.experiment import Experiment

_TIMEOUT_S = 5.0


def has_taken(experiment: Experiment, *, admin: str | None, route: str | None, data: Path, decided_at: float) -> bool:
    """Whether the experiment's current configuration is in force.

    Args:
        admin: address of Envoy's admin interface.
        route: address that clients use.
        decided_at: Unix time before which no exposure can be of this configuration.

    Raises:
        EmberlineError: a router was given and does not answer.
    """
    if admin is not None:
        dump = _get(f"{admin.rstrip('/')}/config_dump?resource=dynamic_route_configs", "Envoy's admin interface")
        return f'"{experiment.config_version}"' in dump.text
    if route is not None:
        answer = _get(f"{route.rstrip('/')}/predictions/{experiment.spec.model}", "the router")
        if (version := answer.headers.get("x-config-version")) is not None:
            return bool(version == experiment.config_version)
    return _was_exposed(experiment, data, decided_at)


def num_active(admin: str, cluster: str) -> int:
    """Requests that Envoy has in flight to one cluster."""
    name = f"cluster.{cluster}.upstream_rq_active"
    stats = _get(f"{admin.rstrip('/')}/stats?format=json", "Envoy's admin interface").json()["stats"]
    return sum(int(entry["value"]) for entry in stats if entry.get("name") == name)


def num_routed(admin: str, clusters: Mapping[str, str]) -> dict[str, int]:
    """Requests that Envoy has sent to each variant since it started, each once however often it was retried.

    Args:
        clusters: their names by variant.
    """
    stats = _get(f"{admin.rstrip('/')}/stats?format=json&filter=upstream_rq_(total|retry)$", "Envoy's admin interface")
    values = {entry["name"]: int(entry["value"]) for entry in stats.json()["stats"] if "value" in entry}
    return {
        variant: values.get(f"cluster.{name}.upstream_rq_total", 0) - values.get(f"cluster.{name}.upstream_rq_retry", 0)
        for variant, name in clusters.items()
    }


def _was_exposed(experiment: Experiment, data: Path, decided_at: float) -> bool:
    files = [str(path) for path in (data / "exposures").glob("part=*/*.parquet") if path.stat().st_mtime >= decided_at]
    if not files:
        return False
    query = "SELECT 1 FROM read_parquet($files) WHERE config_version = $version AND time_us >= $at LIMIT 1"
    named = {"files": files, "version": experiment.config_version, "at": int(decided_at * 1e6)}
    try:
        with duckdb.connect(":memory:") as connection:
            return connection.execute(query, named).fetchone() is not None
    except duckdb.Error as error:
        raise EmberlineError(f"exposures cannot be read: {error}", place=data) from error


def _get(url: str, what: str) -> httpx.Response:
    try:
        return httpx.get(url, timeout=_TIMEOUT_S)
    except httpx.TransportError as error:
        raise EmberlineError(f"{what} does not answer: {error}", place=url, hint="is `emberline route` up?") from error
