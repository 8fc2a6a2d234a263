"""`emberline plan`: how many units an experiment needs, before it is run."""

import time
from pathlib import Path

_ASSUMED = 0.95  # of a control of which nothing is known


def plan(
    experiment: Path | None = None,
    *,
    baseline: float | None = None,
    difference: float = 0.0,
    deviation: float | None = None,
    power: float = 0.8,
    units_per_day: float | None = None,
    disagreement: float = 0.005,
    data: Path | None = None,
) -> None:
    """Say how many units (and days) an experiment's last step and its shadow need.

    Args:
        experiment: The Experiment file; by default the demo's.
        baseline: The control's rate of the primary metric, for a rate or an exceedance; else what --data says, or 0.95.
        difference: True difference, treatment minus control, to plan for; 0 asks what proves non-inferiority.
        deviation: Standard deviation of one unit's value, for a mean; of its linearised value, for a ratio.
        power: Probability that the experiment then ends with a decision.
        units_per_day: New units that reach the router a day.
        disagreement: Share of shadow pairs expected to disagree.
        data: Folder of exposures and outcomes: what the last 14 days' traffic says stands in for what is not given.
    """
    import math

    from rich.console import Console

    from emberline import assets
    from emberline.compare.plan import from_traffic, plan_experiment
    from emberline.compare.table import render_plan, render_traffic
    from emberline.compare.traffic import seen_traffic
    from emberline.errors import InvalidOption
    from emberline.experiment import load_experiment

    if units_per_day is not None and not 0 < units_per_day < math.inf:
        hint = "--data takes it from recent traffic"
        raise InvalidOption("plan", "--units-per-day", units_per_day, "a number above 0", hint=hint)
    if data is not None and not data.is_dir():
        hint = "a router keeps it where its own --data says"
        raise InvalidOption("plan", "--data", str(data), "a folder of exposures and outcomes", hint=hint)
    loaded = load_experiment(experiment or assets.folder("recipes") / "digits.experiment.yaml")
    console = Console()
    if data is not None:
        seen = seen_traffic(loaded, data, time.time())
        console.print(render_traffic(loaded, seen))
        baseline, deviation = from_traffic(loaded, seen, baseline, deviation)
        units_per_day = seen.units_per_day if units_per_day is None else units_per_day
    if baseline is None and loaded.spec.primary.kind in {"rate", "exceedance"}:
        console.print(f"a control's rate of {_ASSUMED:g} is assumed; --baseline names another")
    made = plan_experiment(
        loaded,
        baseline=_ASSUMED if baseline is None else baseline,
        difference=difference,
        deviation=deviation,
        power=power,
        expected_disagreement=disagreement,
    )
    console.print(render_plan(made, units_per_day))
