"""The report's drawings, as inline SVG that follows the page's colours.

Each takes plain numbers. Text is kept as text, so that it stays sharp, small and searchable.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

_INK = "#123456"  # stands for the page's own text colour until the drawing is done
_LOSS, _GAIN, _BAR, _OLD = "#d1495b", "#2e8b57", "#4f7cac", "#c98b2b"
_KINDS = {"aoti": "o", "aoti-cuda": "D", "onnx": "s", "openvino": "^", "exported": "x"}
_NUMBER = (13.0, 10.0)  # pixels that a number beside a mark takes, across and down
_NARROWEST = 4.0  # from the left to the right end of the axis of latencies
_WIDTH = 5.2  # inches: a phone shows it as large as it is drawn, a desk half as large again


def pareto_svg(points: Sequence[Mapping[str, Any]], batch: int) -> str:
    """Accuracy over latency, the area of a mark its size in megabytes; those that nothing beats in both are joined.

    Marks are numbered in the order given, as the table beside the drawing is; names would cover one another.

    Args:
        points: `backend`, `latency_ms`, `accuracy`, `size_mb`, `chosen` of every package.
    """
    figure, (axes,) = _figure(1, 1, 3.9)
    axes.set_xscale("log")
    for point in points:
        axes.scatter(
            point["latency_ms"],
            100 * point["accuracy"],
            s=30 + 40 * np.sqrt(point["size_mb"]),
            marker=_KINDS[point["backend"]],
            color=_GAIN if point["chosen"] else _BAR,
            alpha=0.85,
        )
    front = pareto_front([(point["latency_ms"], point["accuracy"]) for point in points])
    axes.plot([x for x, _ in front], [100 * y for _, y in front], color=_GAIN, linewidth=1, linestyle="--", zorder=0)
    axes.margins(x=0.12, y=0.2)
    _spread_over_a_decade(axes)
    _dress(axes, "")
    axes.set_xlabel(f"milliseconds of a batch of {batch}, logarithmic", color=_INK, fontsize=10)
    axes.set_ylabel("accuracy, %", color=_INK, fontsize=10)
    _number(axes, [(point["latency_ms"], 100 * point["accuracy"]) for point in points])
    return _svg(figure)


def _spread_over_a_decade(axes: Any) -> None:
    """Widens a narrow logarithmic axis, and writes its ticks as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axes.get_xlim()
    if high / low < _NARROWEST:
        middle = np.sqrt(low * high)
        axes.set_xlim(middle / np.sqrt(_NARROWEST), middle * np.sqrt(_NARROWEST))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _number(axes: Any, places: Sequence[tuple[float, float]]) -> None:
    """1, 2, 3 … beside the marks, each at the nearest spot where no other number stands."""
    axes.figure.draw_without_rendering()  # positions in pixels follow from the layout
    taken: list[tuple[float, float]] = []
    for number, place in enumerate(places, start=1):
        at = axes.transData.transform(place)
        spots = [(dx, dy) for dy in (7, -13, 18, -24, 29, -35, 40, -46) for dx in (5, 19, -12, 33)]
        free = [
            (dx, dy)
            for dx, dy in spots
            if all(abs(at[0] + dx - x) > _NUMBER[0] or abs(at[1] + dy - y) > _NUMBER[1] for x, y in taken)
        ]
        dx, dy = min(free or spots, key=lambda spot: spot[0] ** 2 + spot[1] ** 2)
        taken.append((at[0] + dx, at[1] + dy))
        axes.annotate(str(number), place, xytext=(dx, dy), textcoords="offset pixels", fontsize=9, color=_INK)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (latency, accuracy), those for which no other is at least as good in both and better in one; fastest first."""
    front: list[tuple[float, float]] = []
    for latency, accuracy in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((latency, accuracy))
    return front


def waterfall_svg(stages: Sequence[Mapping[str, Any]]) -> str:
    """Three panels, one under the other: accuracy, latency and size, one bar a stage."""
    figure, axes = _figure(3, 1, 7.5)
    names = [stage["stage"].replace("_", "\n") for stage in stages]
    accuracies = [100 * stage["accuracy"] for stage in stages]
    changes = [0.0, *(after - before for before, after in pairwise(accuracies))]
    colours = [_BAR, *(_GAIN if change >= 0 else _LOSS for change in changes[1:])]
    _bars(axes[0], names, accuracies, colours, "accuracy, % (green: not below the stage before)")
    axes[0].set_ylim(0, 115)  # a bar's length is its value: cut off, it would exaggerate
    latencies = [stage["latency_ms"] for stage in stages]
    _bars(axes[1], names, latencies, [_BAR] * len(names), "latency, ms (eager, after the export the package)")
    sizes = [stage["size_bytes"] / 1e3 for stage in stages]
    _bars(axes[2], names, sizes, [_BAR] * len(names), "size, kB (weights, after the export the file)")
    return _svg(figure)


def sensitivity_svg(losses: Mapping[str, float], most: int = 24) -> str:
    """One bar a layer, the worst on top; the longest lists are cut."""
    shown = sorted(losses.items(), key=lambda entry: -entry[1])[:most]
    figure, (axes,) = _figure(1, 1, 0.7 + 0.26 * len(shown))
    axes.barh([name for name, _ in reversed(shown)], [error for _, error in reversed(shown)], color=_BAR, height=0.65)
    axes.bar_label(axes.containers[0], fmt="{:.2g}", color=_INK, fontsize=9, padding=3)
    axes.margins(x=0.15)
    _dress(axes, "")
    return _svg(figure)


def histograms_svg(histograms: Mapping[str, Mapping[str, Any]]) -> str:
    """Weights before (line) and after (filled), all layers first; counts on a logarithmic scale."""
    columns = 2
    rows = -(-len(histograms) // columns)
    figure, axes = _figure(rows, columns, 1.9 * rows)
    for panel, (name, counts) in zip(axes, histograms.items(), strict=False):
        edges = np.linspace(-counts["limit"], counts["limit"], len(counts["before"]) + 1)
        panel.stairs(counts["after"], edges, fill=True, color=_BAR, alpha=0.7, label="after")
        panel.stairs(counts["before"], edges, color=_OLD, linewidth=1.2, label="before")
        panel.set_yscale("symlog")
        _dress(panel, name)
    axes[0].legend(fontsize=8, frameon=False, labelcolor=_INK)
    for panel in axes[len(histograms) :]:
        panel.set_visible(False)
    return _svg(figure)


def _figure(rows: int, columns: int, height: float) -> tuple[Any, list[Any]]:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "emberline"  # the same numbers give the same file
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, list(np.asarray(figure.subplots(rows, columns, squeeze=False)).flat)


def _svg(figure: Any) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def _bars(axes: Any, names: Sequence[str], values: Sequence[float | None], colours: list[str], title: str) -> None:
    bars = axes.bar(names, [value or 0.0 for value in values], color=colours, width=0.6)
    labels = ["not run" if value is None else f"{value:.3g}" for value in values]
    axes.bar_label(bars, labels=labels, color=_INK, fontsize=9, padding=2)
    axes.margins(y=0.18)
    _dress(axes, title)


def _dress(axes: Any, title: str) -> None:
    if title:
        axes.set_title(title, color=_INK, fontsize=10, loc="left")
    axes.tick_params(colors=_INK, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
