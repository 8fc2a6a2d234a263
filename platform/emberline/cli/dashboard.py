"""`emberline dashboard`: the page that shows experiments as they run."""

from pathlib import Path


def dashboard(
    *,
    experiments: Path = Path("state/experiments"),
    data: Path = Path("data"),
    host: str = "127.0.0.1",
    port: int = 8090,
    state: Path = Path("state"),
) -> None:
    """Serve a page for each experiment, live and read-only; the router passes /dashboard on to it.

    Args:
        experiments: Folder of experiments, their status and audit logs.
        data: Folder of exposures and outcomes.
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        state: Folder for dashboard.json, which says where it is.
    """
    from emberline.dashboard.server import run
    from emberline.dashboard.views import Views

    run(Views(experiments, data), host, port, state)
