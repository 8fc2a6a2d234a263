"""`emberline serve`."""

from pathlib import Path

from emberline.cli.options import DEFAULT_RECIPE, Set, find_recipe


def serve(
    *archives: Path,
    store: Path = Path("store"),
    keys: Path = Path("keys"),
    recipe: Path = DEFAULT_RECIPE,
    settings: Set = (),
    host: str = "127.0.0.1",
    port: int = 8085,
    management_port: int = 8086,
    metrics_port: int = 8087,
    health_port: int = 8088,
    state: Path = Path("state"),
    allow_unsigned: bool = False,
) -> None:
    """Serve archives with TorchServe: verified, supervised, ready when each version has answered a probe rightly.

    Runs until SIGTERM or Ctrl-C, then waits for the requests under way. Archives that come, change or go meanwhile are
    taken in, replaced or let go; on SIGHUP the recipe is read again. Clients belong in front of the router
    (`emberline route`), not here.

    Args:
        archives: Archives to serve; none means all of the store.
        store: Folder of signed archives.
        keys: Folder with the public key of the signer that is trusted.
        recipe: Recipe whose `serve` section says workers, batching and timeouts.
        host: Address of the inference port; every other port stays on loopback.
        port: Port of the inference API; 0 picks a free one, here and below.
        management_port: Port of the management API.
        metrics_port: Port of TorchServe's own metrics.
        health_port: Port of /livez, /readyz and /metrics.
        state: Folder for serve.json and logs.
        allow_unsigned: Serve archives whose signature is missing or wrong; each is warned about.
    """
    from emberline.recipe import load_recipe
    from emberline.serve import server
    from emberline.serve.config import Ports
    from emberline.signing import PUBLIC_KEY

    path = find_recipe(recipe)
    server.serve(
        server.Settings(
            archives=archives,
            store=store,
            public_key=keys / PUBLIC_KEY,
            state=state,
            host=host,
            ports=Ports(port, management_port, metrics_port, health_port),
            serve=load_recipe(path, settings).serve,
            reload=lambda: load_recipe(path, settings).serve,
            allow_unsigned=allow_unsigned,
        )
    )
