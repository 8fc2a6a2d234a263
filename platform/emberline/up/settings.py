"""Where one machine's stack lives: its ports and folders, and the arguments each verb gets. Pure."""

from dataclasses import dataclass
from pathlib import Path

from emberline.errors import InvalidSetting
from emberline.recipe import Recipe


@dataclass(frozen=True)
class Settings:
    """Ports (0: any free one is not offered here, since curl lines must stay true) and folders of a stack."""

    recipe: Path
    runs: Path = Path("runs")
    store: Path = Path("store")
    keys: Path = Path("keys")
    data: Path = Path("data")
    state: Path = Path("state")
    port: int = 8080
    serve_port: int = 8085
    dashboard_port: int = 8090

    @property
    def experiments(self) -> Path:
        return self.state / "experiments"

    def log(self, verb: str) -> Path:
        return self.state / f"{verb}.log"


Arguments = list[object]


def build_steps(settings: Settings, overrides: tuple[str, ...]) -> list[tuple[str, Arguments]]:
    """The verbs that make what is missing, in order; each says what it reuses."""
    sets: Arguments = [part for override in overrides for part in ("--set", override)]
    runs: Arguments = [settings.recipe, "--runs", settings.runs, *sets]
    return [
        ("train", runs),
        ("compress", runs),
        ("archive", [*runs, "--store", settings.store, "--keys", settings.keys]),
    ]


def archives(recipe: Recipe, store: Path) -> list[Path]:
    """Archives of the recipe, baseline first.

    Raises:
        InvalidSetting: the recipe has no archive section.
    """
    if recipe.archive is None:
        raise InvalidSetting(f"recipe {recipe.run}", "archive", None, "a section that names model and versions")
    return [store / f"{recipe.archive.model}-{version}.mar" for version in recipe.archive.versions.values()]


def default_version(recipe: Recipe) -> str:
    """What answers where no experiment decides: the baseline's version."""
    assert recipe.archive is not None  # noqa: S101 - `archives` was called before
    versions = recipe.archive.versions
    baseline = recipe.compress.baseline if recipe.compress else next(iter(versions))
    return versions.get(baseline, next(iter(versions.values())))


def serve_arguments(settings: Settings, recipe: Recipe) -> Arguments:
    ports: Arguments = ["--port", settings.serve_port, "--management-port", settings.serve_port + 1]
    ports += ["--metrics-port", settings.serve_port + 2, "--health-port", settings.serve_port + 3]
    folders: Arguments = ["--store", settings.store, "--keys", settings.keys, "--state", settings.state]
    return [*archives(recipe, settings.store), "--recipe", settings.recipe, *folders, *ports]


def route_arguments(settings: Settings, recipe: Recipe, admin_port: int) -> Arguments:
    assert recipe.archive is not None  # noqa: S101 - `archives` was called before
    address = f"127.0.0.1:{settings.serve_port}"
    upstreams: Arguments = []
    for version in recipe.archive.versions.values():
        upstreams += ["--upstream", f"{recipe.archive.model}@{version}={address}"]
    default: Arguments = ["--default", f"{recipe.archive.model}={default_version(recipe)}"]
    folders: Arguments = ["--experiments", settings.experiments, "--data", settings.data, "--state", settings.state]
    dashboard: Arguments = ["--dashboard", f"127.0.0.1:{settings.dashboard_port}"]
    return [*upstreams, *default, *folders, "--port", settings.port, "--admin-port", admin_port, *dashboard]


def dashboard_arguments(settings: Settings) -> Arguments:
    folders: Arguments = ["--experiments", settings.experiments, "--data", settings.data, "--state", settings.state]
    return [*folders, "--port", settings.dashboard_port]


def rollout_arguments(settings: Settings, admin_port: int) -> Arguments:
    folders: Arguments = ["--experiments", settings.experiments, "--data", settings.data]
    admin = f"http://127.0.0.1:{admin_port}"
    router: Arguments = ["--route", f"http://127.0.0.1:{settings.port}", "--envoy-admin", admin]
    return [*folders, *router, "--management", f"127.0.0.1:{settings.serve_port + 1}"]
