"""`emberline plan`: how many units an experiment needs, before it is run."""

from pathlib import Path


def plan(
    experiment: Path | None = None,
    *,
    baseline: float = 0.95,
    difference: float = 0.0,
    deviation: float | None = None,
    power: float = 0.8,
    units_per_day: float | None = None,
    disagreement: float = 0.005,
) -> None:
    """Say how many units (and days) an experiment's last step and its shadow need.

    Args:
        experiment: The Experiment file; by default the demo's.
        baseline: The control's rate of the primary metric, for a rate or an exceedance.
        difference: True difference, treatment minus control, to plan for; 0 asks what proves non-inferiority.
        deviation: Standard deviation of one unit's value, for a mean.
        power: Probability that the experiment then ends with a decision.
        units_per_day: New units that reach the router a day.
        disagreement: Share of shadow pairs expected to disagree.
    """
    from rich.console import Console

    from emberline import assets
    from emberline.compare.plan import plan_experiment
    from emberline.compare.table import render_plan
    from emberline.experiment import load_experiment

    loaded = load_experiment(experiment or assets.folder("recipes") / "digits.experiment.yaml")
    made = plan_experiment(
        loaded,
        baseline=baseline,
        difference=difference,
        deviation=deviation,
        power=power,
        expected_disagreement=disagreement,
    )
    Console().print(render_plan(made, units_per_day))
