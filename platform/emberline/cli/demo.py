"""`emberline demo`."""

from pathlib import Path

from emberline.cli.options import DEFAULT_RECIPE, find_recipe


def demo(
    recipe: Path = DEFAULT_RECIPE,
    /,
    *,
    keep: bool = False,
    report: Path = Path("report"),
    port: int = 8080,
    serve_port: int = 8085,
    dashboard_port: int = 8090,
) -> None:
    """Run the whole path once: train (a worker is killed), compress, archive, serve, route, compare.

    Clients are simulated; predictions, routing, exposures and the assessment are real. What is there is reused.

    Args:
        recipe: What to run; the default is the digits that ship with scikit-learn.
        keep: Leave everything up at the end.
        report: Folder of the report.
        port: The router's.
        serve_port: First of four that serving takes.
        dashboard_port: The page's.
    """
    from emberline.up.demo import run_demo
    from emberline.up.settings import Settings

    settings = Settings(find_recipe(recipe), port=port, serve_port=serve_port, dashboard_port=dashboard_port)
    run_demo(settings, report, keep=keep)
