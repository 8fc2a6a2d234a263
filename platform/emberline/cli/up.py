"""`emberline up`."""

from pathlib import Path

from emberline.cli.options import DEFAULT_RECIPE, Set, find_recipe


def up(
    recipe: Path = DEFAULT_RECIPE,
    /,
    *,
    settings: Set = (),
    runs: Path = Path("runs"),
    store: Path = Path("store"),
    keys: Path = Path("keys"),
    data: Path = Path("data"),
    state: Path = Path("state"),
    port: int = 8080,
    serve_port: int = 8085,
    dashboard_port: int = 8090,
    build: bool = True,
    fresh: bool = False,
) -> None:
    """Bring everything up on this machine: build what is missing, then serve, route, roll out, show.

    Stays until Ctrl-C or `emberline down`. All ports are loopback.

    Args:
        recipe: What to train, compress, archive and serve.
        runs: Folder of runs.
        store: Folder of signed archives.
        keys: Folder of the signing keys.
        data: Folder of exposures and outcomes.
        state: Folder of what the running verbs tell, their logs among it.
        port: The router's.
        serve_port: First of four that serving takes.
        dashboard_port: The page's; it is also at the router's /dashboard/.
        build: Call train, compress and archive first; they reuse what is there.
        fresh: Let the experiment start anew.
    """
    from emberline.up.run import up as bring_up
    from emberline.up.settings import Settings

    paths = Settings(find_recipe(recipe), runs, store, keys, data, state, port, serve_port, dashboard_port)
    bring_up(paths, settings, build=build, fresh=fresh)
