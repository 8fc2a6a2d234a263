"""The report of an experiment: a page and pictures that need no network, and the numbers as JSON."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from emberline import storage
from emberline.compare import chart
from emberline.compare.assessment import Assessment
from emberline.compare.costs import saving_text
from emberline.compare.table import claim_text, interval_text, pairs_lines, weight_heading
from emberline.experiment import Experiment

TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("emberline.compare", "."), autoescape=True)
"""Page parts; other floors' pages include them."""
_WORDS = {
    "interval_text": interval_text,
    "claim_text": claim_text,
    "pairs_lines": pairs_lines,
    "duration_text": chart.duration_text,
    "saving_text": saving_text,
    "weight_heading": weight_heading,
}


def write_report(folder: Path, experiment: Experiment, look: Assessment, looks: Sequence[Assessment]) -> Path:
    """Writes `index.html`, one SVG a metric and `assessment.json`; returns the page's path.

    Args:
        looks: earlier looks, oldest first, for intervals over time.
    """
    charts = charts_of(look, looks)
    storage.write_bytes(folder / "assessment.json", look.model_dump_json(indent=2).encode() + b"\n")
    for name, svg in charts.items():
        storage.write_bytes(folder / f"{name}.svg", svg.encode())
    page = folder / "index.html"
    storage.write_bytes(page, render_page(experiment, look, charts).encode())
    return page


def charts_of(look: Assessment, looks: Sequence[Assessment]) -> dict[str, str]:
    """SVG by file name: one for each metric of the step, and one for the shadow."""
    every = [*looks, look]
    charts = {}
    for result in look.metrics:
        points = chart.metric_points(every, result.metric, result.role, look.config_version)
        limit_name = "margin" if result.role == "primary" else "max increase"
        title = f"{result.metric}: treatment minus control"
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{result.role}-{result.metric}")
        charts[name] = chart.interval_chart(title, points, result.limit, limit_name)
    shadows = [one for one in every if one.pairs is not None]
    if shadows and shadows[-1].pairs is not None:
        limit = shadows[-1].pairs.limit
        points = chart.pairs_points([one for one in shadows if one.config_version == shadows[-1].config_version])
        charts["shadow"] = chart.interval_chart("Shadow: share of differing labels", points, limit, "limit")
    return {name: svg for name, svg in charts.items() if svg}


def render_page(experiment: Experiment, look: Assessment, charts: dict[str, str]) -> str:
    """The page, its pictures inside."""
    template = TEMPLATES.get_template("report.html.j2")
    return template.render(experiment=experiment, look=look, charts=charts, **_WORDS)


def render_assessment(experiment: Experiment, look: Assessment, charts: dict[str, str]) -> str:
    """The page's inside alone, for pages that have more to show."""
    template = TEMPLATES.get_template("assessment.html.j2")
    return template.render(experiment=experiment, look=look, charts=charts, **_WORDS)
