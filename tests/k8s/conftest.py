"""The manifests as a cluster would get them: rendered once per overlay."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = ("demo", "gpu", "one-gpu", "torchrun")
_WORKLOADS = ("Deployment", "Job")


@dataclass(frozen=True)
class Manifests:
    """The documents of one overlay, and the questions tests ask of them."""

    documents: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [document for document in self.documents if document["kind"] == kind]

    @property
    def workloads(self) -> list[dict[str, Any]]:
        return [document for kind in _WORKLOADS for document in self.of(kind)]

    @property
    def pods(self) -> list[dict[str, Any]]:
        """Templates of all pods, each with its `metadata` and `spec`."""
        return [workload["spec"]["template"] for workload in self.workloads]

    @property
    def containers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every container, init steps included, with a name to report it by."""
        for workload in self.workloads:
            spec = workload["spec"]["template"]["spec"]
            for container in (*spec.get("initContainers", ()), *spec["containers"]):
                yield f"{workload['metadata']['name']}/{container['name']}", container

    def pods_matching(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        return [pod for pod in self.pods if labels.items() <= pod["metadata"]["labels"].items()]


@cache
def parse(text: str) -> Manifests:
    return Manifests(tuple(document for document in yaml.safe_load_all(text) if document))


@cache
def kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed; base and overlays are only parsed, not rendered")
    return found


def run_kustomize(folder: Path) -> str:
    return subprocess.run([kubectl(), "kustomize", folder], check=True, capture_output=True, text=True).stdout


@cache
def _render(overlay: str, scratch: Path) -> str:
    if overlay != "torchrun":
        return run_kustomize(K8S / "overlays" / overlay)
    kubectl()  # skips where there is none, before anything is written
    own = scratch / "torchrun"  # what a user writes who prefers torch's launcher
    own.mkdir()
    up = Path(*[".."] * (len(own.resolve().parts) - 1)) / K8S.relative_to("/")
    content = {"resources": [str(up / "overlays/demo")], "components": [str(up / "components/torchrun")]}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return run_kustomize(own)


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Renders an overlay by name, as text."""
    scratch = tmp_path_factory.mktemp("overlays")
    return lambda overlay: _render(overlay, scratch)


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, render: Callable[[str], str]) -> Manifests:
    return parse(render(request.param))


@pytest.fixture
def rendered(render: Callable[[str], str]) -> Callable[[str], Manifests]:
    """One overlay by name."""
    return lambda overlay: parse(render(overlay))


@pytest.fixture
def k8s() -> Path:
    return K8S
