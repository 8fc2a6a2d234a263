"""Renderings become Envoy's configuration in an order in which no request meets a cluster that is not there."""

from collections.abc import Sequence
from pathlib import Path

from emberline import process, storage
from emberline.errors import StageFailed
from emberline.route.bootstrap import CDS, MIRRORED_RDS, RDS
from emberline.route.clusters import SHADOW, Json
from emberline.route.envoy import Admin
from emberline.route.render import Rendering, discovery
from emberline.route.routes import MAIN, MIRRORED

_CLUSTERS = "cluster_manager.cds.version_text"
_ROUTES = (f"http.main.rds.{MAIN}.version_text", f"http.{SHADOW}.rds.{MIRRORED}.version_text")
_ACCEPT_S = 3.0  # 20-30 ms when all is well; a dead Envoy is noticed after it


class Publisher:
    """Writes the files that Envoy watches, and waits until it runs them.

    Clusters come before the routes that need them and go one rendering later, so requests under way keep theirs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: dict[str, Json] = {}

    def write(self, rendering: Rendering) -> None:
        """Writes everything at once: for an Envoy that is not running."""
        self._clusters(rendering, {})
        self._routes(rendering)
        self._before = rendering.clusters

    def publish(self, rendering: Rendering, admins: Sequence[Admin]) -> None:
        """Replaces what running Envoys do.

        Raises:
            StageFailed: Envoy did not take it; what it did before stays in force.
        """
        version = self._clusters(rendering, self._before)
        _wait_for(admins, dict.fromkeys((_CLUSTERS,), version))
        self._routes(rendering)
        _wait_for(admins, dict.fromkeys(_ROUTES, rendering.version))
        self._before = rendering.clusters

    def _clusters(self, rendering: Rendering, before: dict[str, Json]) -> str:
        kept = {**before, **rendering.clusters}
        version = rendering.version if kept == rendering.clusters else f"{rendering.version}+{len(kept)}"
        self._write(CDS, discovery("config.cluster.v3.Cluster", version, list(kept.values())))
        return version

    def _routes(self, rendering: Rendering) -> None:
        # the inner listener first: it must know a shadow's version before the first mirrored request
        kind = "config.route.v3.RouteConfiguration"
        self._write(MIRRORED_RDS, discovery(kind, rendering.version, [rendering.mirrored]))
        self._write(RDS, discovery(kind, rendering.version, [rendering.routes]))

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        if not path.is_file() or path.read_bytes() != content:
            storage.write_bytes(path, content)


def in_force(rendering: Rendering, admins: Sequence[Admin]) -> bool:
    """Whether every Envoy runs exactly this rendering's routes."""
    return _have_taken(admins, dict.fromkeys(_ROUTES, rendering.version))


def _have_taken(admins: Sequence[Admin], wanted: dict[str, str]) -> bool:
    every = [admin.versions() for admin in admins]
    return all(versions.get(name) == version for versions in every for name, version in wanted.items())


def _wait_for(admins: Sequence[Admin], wanted: dict[str, str]) -> None:
    def taken() -> bool:
        return _have_taken(admins, wanted)

    try:
        process.wait_until(taken, _ACCEPT_S, "Envoy takes the new configuration", every_s=0.01)
    except StageFailed as error:
        raise StageFailed(
            "route", "Envoy did not take the new configuration; the old one stays", hint="its log names the reason"
        ) from error
