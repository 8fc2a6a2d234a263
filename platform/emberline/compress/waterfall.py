"""The waterfall of stages: accuracy and weights after each, as an inline SVG that follows the page's colours."""

import io
from itertools import pairwise
from typing import Any

_INK = "#123456"  # stands for the page's own text colour until the drawing is done
_LOSS, _GAIN, _BAR = "#d1495b", "#2e8b57", "#4f7cac"


def waterfall_svg(stages: list[dict[str, Any]]) -> str:
    """Two panels side by side: accuracy in percent, weights in kilobytes, one bar a stage."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    names = [stage["stage"].replace("_", "\n") for stage in stages]
    accuracies = [100 * stage["accuracy"] for stage in stages]
    changes = [0.0, *(after - before for before, after in pairwise(accuracies))]
    colours = [_BAR, *(_GAIN if change >= 0 else _LOSS for change in changes[1:])]
    _bars(left, names, accuracies, colours, "accuracy, % (green: not below the stage before)")
    left.set_ylim(0, 110)  # a bar's length is its value: cut off, it would exaggerate
    kilobytes = [stage["weights_bytes"] / 1e3 for stage in stages]
    _bars(right, names, kilobytes, [_BAR] * len(names), "weights, kB")
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def _bars(axes: Any, names: list[str], values: list[float], colours: list[str], title: str) -> None:
    bars = axes.bar(names, values, color=colours, width=0.6)
    axes.bar_label(bars, fmt="{:.3g}", color=_INK, fontsize=8, padding=2)
    axes.set_title(title, color=_INK, fontsize=10, loc="left")
    axes.tick_params(colors=_INK, labelsize=8)
    axes.margins(y=0.15)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
