"""An assessment on the terminal."""

import math
from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from emberline.compare.assessment import Assessment, MetricResult, PairsResult
from emberline.compare.costs import saving_text, spent_text
from emberline.compare.plan import Plan
from emberline.compare.traffic import DAYS, Traffic
from emberline.experiment import Experiment

VERDICT_STYLES = {
    "running": "bold blue",
    "ship": "bold green",
    "stop": "bold red",
    "inconclusive": "bold yellow",
    "invalid": "bold magenta",
}


def render(look: Assessment) -> RenderableType:
    """Arms, metrics with their intervals, and the verdict with its reasons."""
    return Group(*_parts(look))


def _parts(look: Assessment) -> Iterator[RenderableType]:
    yield Text(headline(look), style="bold")
    if look.arms:
        yield _arms(look)
    if look.metrics:
        yield _metrics(look)
    if look.secondary:
        yield _secondary(look)
    if look.pairs is not None:
        yield from map(Text, pairs_lines(look.pairs))
    for cost in look.costs:
        price = "" if cost.price_per_million is None else f", {cost.price_per_million:.3g} a million requests"
        yield Text(f"{cost.variant}: {spent_text(cost)}{price}")
    if saved := saving_text(look.costs):
        yield Text(saved)
    if look.sample_ratio_p is not None:
        yield Text(f"sample ratio: p = {look.sample_ratio_p:.3g}; units in both variants: {look.crossed}")
    verdict = Text.assemble(("verdict: ", "bold"), (look.verdict, VERDICT_STYLES[look.verdict]))
    yield verdict
    for reason in look.reasons:
        yield Text(f"  {reason}")


def headline(look: Assessment) -> str:
    """How far the experiment has come, and once it has ended, who answers now."""
    waited = "" if look.step is None else f", {look.waited_s:.0f} s in"
    now = f"; traffic now: {look.weights_text}" if look.ended else ""
    return f"{look.experiment}: {look.progress}{waited}{now}"


def weight_heading(look: Assessment) -> str:
    """Weights of an ended experiment are those of the step that was judged, not those in force."""
    return f"weight in step {look.step + 1}" if look.ended and look.step is not None else "weight"


def _arms(look: Assessment) -> Table:
    table = Table("variant", "version", box=box.SIMPLE_HEAD)
    for heading in (weight_heading(look), "units", "requests", "answered by another"):
        table.add_column(heading, justify="right")
    for arm in look.arms:
        weight = f"{arm.weight / 100:g} %"
        table.add_row(arm.variant, arm.version, weight, f"{arm.units:,}", f"{arm.requests:,}", f"{arm.fallbacks:,}")
    return table


def _metrics(look: Assessment) -> Table:
    table = Table("metric", "", box=box.SIMPLE_HEAD)
    for heading in ("control", "treatment", "difference", "confidence sequence", "limit", "alpha"):
        table.add_column(heading, justify="right")
    for result in look.metrics:
        table.add_row(
            result.metric,
            result.role,
            _number(result.control),
            _number(result.treatment),
            _number(result.difference, "+.4f"),
            interval_text(result),
            f"{result.limit:+g}",
            f"{result.alpha:.3g}",
        )
    return table


def _secondary(look: Assessment) -> Table:
    table = Table("metric", "segment", box=box.SIMPLE_HEAD)
    for heading in ("control", "treatment", "difference", "confidence sequence", "p, by Holm"):
        table.add_column(heading, justify="right")
    for result in look.secondary:
        table.add_row(
            result.metric,
            result.segment or "all",
            _number(result.control),
            _number(result.treatment),
            _number(result.difference, "+.4f"),
            interval_text(result),
            claim_text(result),
        )
    return table


def claim_text(result: MetricResult) -> str:
    """What may be claimed of a secondary metric or a segment."""
    if result.exploratory:
        return "exploratory: no claim"
    if result.p_adjusted is None:
        return "-"
    words = {"above": ": higher", "below": ": lower"}.get(result.side, "")
    return f"{result.p_adjusted:.3g}{words}"


def pairs_lines(pairs: PairsResult) -> list[str]:
    """The shadow in words."""
    limit = "" if pairs.limit is None else f"; limit {pairs.limit:.2%}"
    interval = f"[{pairs.lower:.2%}, {pairs.upper:.2%}]"
    lines = [f"shadow: {pairs.disagreements} of {pairs.pairs} pairs disagree, {interval}{limit}"]
    if pairs.noise is not None:
        noise = pairs.noise
        interval = f"[{noise.lower:.2%}, {noise.upper:.2%}]"
        lines.append(
            f"noise: the control disagrees with itself in {noise.disagreements} of {noise.pairs} pairs, {interval}"
        )
    if pairs.accuracy is not None:
        found = pairs.accuracy
        limit = "" if found.limit is None else f"; limit {found.limit:+g}"
        lines.append(
            f"accuracy over the same requests: {found.difference:+.4f} in [{found.lower:+.4f}, {found.upper:+.4f}]"
            f"{limit}; {found.better} better, {found.worse} worse, {found.unlabelled} without a label"
        )
    return lines


def interval_text(result: MetricResult) -> str:
    if result.lower is None or result.upper is None:
        return "too few units"
    return f"[{result.lower:+.4f}, {result.upper:+.4f}]"


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def render_plan(plan: Plan, units_per_day: float | None) -> RenderableType:
    """A plan, with days when the traffic is known."""
    title = f"{plan.experiment}: {plan.metric} against margin {plan.margin:g}, {plan.share:.0%} treated"
    table = Table("", "units of both variants", box=box.SIMPLE_HEAD, title=title, title_justify="left")
    if units_per_day:
        table.add_column("days", justify="right")
    table.columns[1].justify = "right"
    rows = [("one look, at the end", plan.fixed_units), ("looks at any time, at most", plan.cap_units)]
    for name, units in rows:
        table.add_row(name, f"{units:,}", *([f"{units / units_per_day:.1f}"] if units_per_day else []))
    lines = [Text(f"shadow: {pairs:,} pairs certify disagreement below {limit:.2%}") for limit, pairs in plan.pairs]
    lines.append(Text(f"planned_units: {plan.best_units} in the experiment makes its intervals narrowest there"))
    if plan.planned_units != plan.best_units:
        lines[-1].append(f" (now {plan.planned_units})")
    return Group(table, *lines)


def render_traffic(experiment: Experiment, seen: Traffic) -> RenderableType:
    """What was seen of a model's traffic, in a sentence or two."""
    if not seen.units:
        return Text(f"no traffic of {experiment.spec.model} was seen in the last {DAYS:g} days")
    pace = seen.units_per_day
    per_day = f", {pace:,.0f} new units a day" if pace is not None else ": too short a time for a pace"
    days = f"{seen.days:.1f} days" if seen.days >= 1 else f"{seen.days * 24:.1f} hours"
    text = f"seen in {days}: {seen.units:,} units, {seen.requests:,} requests{per_day}"
    control, metric = seen.control, experiment.spec.primary.metric
    if control.count > 1:
        spread = math.sqrt(control.variance)
        text += f"\n{metric} of the control: {control.mean:.4f} over {control.count:,} units, deviation {spread:.3g}"
    return Text(text)
