"""The table that measuring prints."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from emberline.measure.session import Measured
from emberline.measure.timing import speedup


def print_table(measured: Mapping[str, Measured], baseline: str, console: Console | None = None) -> None:
    """One line a candidate and batch size; speed-ups are against `baseline`."""
    table = Table(
        title=(
            f"latency of one batch, median of interleaved rounds; speed-up against {baseline}; MB: file, "
            "peak MB: process with the largest batch"
        ),
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("artifact", overflow="fold")  # paths may be long: the numbers stay whole
    table.add_column("package", no_wrap=True)
    for column in ("MB", "peak MB", "batch", "wall ms", "spread", "CPU ms", "speed-up"):
        table.add_column(column, justify="right", no_wrap=True)
    scored = any(one.correct is not None for one in measured.values())
    if scored:
        table.add_column("accuracy", justify="right", no_wrap=True)
    for one in measured.values():
        accuracy = "-" if one.correct is None else f"{one.correct.mean():.2%}"
        for timing in one.timings:
            against = measured[baseline].timing(timing.batch)
            table.add_row(
                one.name,
                f"{one.package['backend']} {one.package['precision']}",
                f"{one.size_bytes / 1e6:.2f}",
                "-" if one.memory_mb is None else f"{one.memory_mb:.0f}",
                str(timing.batch),
                f"{timing.wall_median_ms:.3f}",
                f"{timing.spread_ms:.3f}",
                f"{timing.cpu_median_ms:.3f}",
                "-" if one.name == baseline else f"{speedup(against, timing):.2f}x",
                *([accuracy] if scored else []),
            )
    (console or Console()).print(table)
