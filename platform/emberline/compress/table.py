"""The table at the end of `emberline compress`."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from emberline.compress.entry import Entry
from emberline.recipe import Compress


def print_summary(entries: Mapping[str, Entry], settings: Compress, console: Console) -> None:
    """One line an artifact, then everything that must not stay unsaid."""
    table = Table(
        title="accuracy on validation rows; ms: median latency of a batch, rounds interleaved",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in ("artifact", "backend"):
        table.add_column(column, no_wrap=True)
    for column in (
        "accuracy",
        "drop",
        "MB",
        *(f"ms at {size}" for size in settings.batch_sizes),
        f"speed-up at {settings.batch_sizes[0]}",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries.values():
        measurement = entry.measurement
        table.add_row(
            entry.name,
            f"{entry.measured.package['backend']} {entry.measured.package['precision']}",
            f"{measurement.accuracy:.2%}",
            "-" if entry.name == settings.baseline else f"{100 * (measurement.accuracy_drop or 0):.2f} pt",
            f"{measurement.size_bytes / 1e6:.2f}",
            *(f"{latency.wall_ms:.3f}" for latency in measurement.latencies),
            "baseline" if entry.name == settings.baseline else f"{measurement.speedup:.2f}x",
        )
    console.print(table)
    for entry in entries.values():
        for outcome in entry.outcomes:
            console.print(f"{entry.name}: gate {outcome.gate} {outcome.verdict}: {outcome.text}", markup=False)
        for warning in entry.measurement.warnings:
            console.print(f"{entry.name}: warning: {warning}", markup=False)
