"""`emberline compare`: what the traffic says about the versions of an experiment."""

from pathlib import Path


def compare(
    *experiment: Path,
    data: Path = Path("data"),
    report: Path = Path("report"),
    experiments: Path = Path("state/experiments"),
    segment: tuple[str, ...] = (),
    spark: str | None = None,
) -> None:
    """Assess experiments from their exposures and outcomes; print a table and write a report.

    A verdict is one of running, ship, stop, inconclusive and invalid; each of them is an answer, so each exits with 0.

    Args:
        experiment: Experiment files; without any, all in --experiments.
        data: Folder of exposures and outcomes.
        report: Folder for the reports: NAME/index.html, its pictures, and assessment.json.
        experiments: Where the status of an experiment is, if it is not beside its file.
        segment: Units to look at apart, such as "tenure_days > 30"; not declared in the experiment, so marked as
            exploratory. May be given several times.
        spark: Sum the rows with Spark instead of DuckDB, on this master, such as local[2] or spark://host:7077, which
            sees the data under the same path. Needs the extra `spark`.
    """
    from rich.console import Console

    from emberline.compare.table import render
    from emberline.compare.verb import compare_experiments

    console = Console(emoji=False)
    if not console.is_terminal:
        console.width = 110
    for look, page in compare_experiments(experiment, data, report, experiments, segments=segment, spark=spark):
        console.print(render(look))
        console.print(f"report: {page}", markup=False, soft_wrap=True)
