"""Intervals over time as SVG: legible at phone width, in light and dark, without a script or a font of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from emberline.compare.assessment import Assessment, MetricResult

WIDTH, HEIGHT = 480, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 12, 54, 34
_LEGEND = 41  # between title and plot: beside its line the limit's name would lie on the band
_TICKS = 4
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))

STYLE = """
.chart{--ink:#1f2328;--faint:#6e7781;--grid:#d8dee4;--band:#0969da;--limit:#cf222e;font:16px system-ui,sans-serif}
@media (prefers-color-scheme:dark){.chart{--ink:#e6edf3;--faint:#8d96a0;--grid:#30363d;--band:#58a6ff;--limit:#ff7b72}}
.chart text{fill:var(--faint)}.chart .title{fill:var(--ink);font-weight:600;font-size:17px}
.chart .grid{stroke:var(--grid)}.chart .zero{stroke:var(--faint)}
.chart .band{fill:var(--band);opacity:.18}.chart .line{fill:none;stroke:var(--band);stroke-width:2}
.chart .dot{fill:var(--band)}.chart .limit{stroke:var(--limit);stroke-width:1.5;stroke-dasharray:5 4}
.chart .limit-label{fill:var(--limit)}
"""


@dataclass(frozen=True)
class Point:
    """One look: seconds into the step, with the interval as it was then."""

    at_s: float
    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Scale:
    """Maps a value range to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)


def metric_points(looks: Sequence[Assessment], metric: str, role: str, config_version: str) -> tuple[Point, ...]:
    """What looks at one step said of one metric."""
    return tuple(
        _point(look.waited_s, result)
        for look in looks
        for result in look.metrics
        if look.config_version == config_version
        and (result.metric, result.role) == (metric, role)
        and result.lower is not None
    )


def pairs_points(looks: Sequence[Assessment]) -> tuple[Point, ...]:
    """What looks at the shadow step said of the disagreement."""
    return tuple(
        Point(look.waited_s, look.pairs.rate, look.pairs.lower, look.pairs.upper)
        for look in looks
        if look.pairs is not None and look.pairs.pairs
    )


def interval_chart(title: str, points: Sequence[Point], limit: float | None, limit_name: str) -> str:
    """The interval over time beside its limit; an empty text without points.

    The value range follows the last interval and the limit: the first ones are wide and would flatten all the rest.
    """
    if not points:
        return ""
    x = Scale(0.0, max(points[-1].at_s, 1e-9), _LEFT, WIDTH - _RIGHT)
    low, high = _value_range(points, limit)
    y = Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    parts = [
        (
            f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title)}"><style>{STYLE}</style>'
        ),
        f'<text class="title" x="12" y="18">{escape(title)}</text>',
        *_axes(x, y),
        _band(points, x, y),
    ]
    if limit is not None:
        at = f"{y(limit):.1f}"
        parts += [
            f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>',
            f'<line class="limit" x1="{_LEFT}" x2="{_LEFT + 24}" y1="{_LEGEND - 5}" y2="{_LEGEND - 5}"/>',
            f'<text class="limit-label" x="{_LEFT + 32}" y="{_LEGEND}">{escape(limit_name)} {limit:+g}</text>',
        ]
    last = points[-1]
    words = f"{last.estimate:+.4f} in [{last.lower:+.4f}, {last.upper:+.4f}]"
    column = f'x1="{x(last.at_s):.1f}" x2="{x(last.at_s):.1f}" y1="{y(last.lower):.1f}" y2="{y(last.upper):.1f}"'
    parts.append(f'<line class="line" {column}/>')
    dot = f'<circle class="dot" cx="{x(last.at_s):.1f}" cy="{y(last.estimate):.1f}" r="4">'
    parts += [f"{dot}<title>{words}</title></circle>", "</svg>"]
    return "\n".join(parts)


def _value_range(points: Sequence[Point], limit: float | None) -> tuple[float, float]:
    last = points[-1]
    values = [0.0, last.lower, last.upper, *([limit] if limit is not None else [])]
    room = max((last.upper - last.lower), max(values) - min(values), 1e-9)
    return min(values) - 0.35 * room, max(values) + 0.35 * room


def _axes(x: Scale, y: Scale) -> list[str]:
    parts = []
    for value in _round_values(y.low, y.high):
        at = f"{y(value):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{_signed(value)}</text>')
    for moment in _round_moments(x.high):
        anchor = "start" if moment == 0 else "end" if x(moment) > WIDTH - _RIGHT - _LEFT / 2 else "middle"
        parts.append(
            f'<text x="{x(moment):.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{duration_text(moment)}</text>'
        )
    parts.append(f'<line class="zero" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>')
    return parts


def _round_values(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, about `_TICKS` of them."""
    rough = (high - low) / _TICKS
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _round_moments(end: float) -> list[float]:
    """Times that are round in the unit they are told in."""
    length = next((length for _, length in _UNITS if end >= 2 * length), 1)
    return [value * length for value in _round_values(0.0, end / length)]


def _band(points: Sequence[Point], x: Scale, y: Scale) -> str:
    upper = " ".join(f"{x(point.at_s):.1f},{y(point.upper):.1f}" for point in points)
    lower = " ".join(f"{x(point.at_s):.1f},{y(point.lower):.1f}" for point in reversed(points))
    middle = " ".join(f"{x(point.at_s):.1f},{y(point.estimate):.1f}" for point in points)
    return f'<polygon class="band" points="{upper} {lower}"/><polyline class="line" points="{middle}"/>'


def _point(at_s: float, result: MetricResult) -> Point:
    assert result.lower is not None  # noqa: S101 - the caller keeps results without an interval out
    assert result.upper is not None  # noqa: S101 - same
    return Point(at_s, (result.lower + result.upper) / 2, result.lower, result.upper)


def duration_text(seconds: float) -> str:
    """Seconds in the largest unit of which there are two."""
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def _signed(value: float) -> str:
    return f"{value:+.6g}" if value else "0"
