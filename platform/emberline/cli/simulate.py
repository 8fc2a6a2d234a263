"""`emberline simulate`."""

import math
from pathlib import Path

from emberline.cli.options import DEFAULT_RECIPE, Set, find_recipe


def simulate(
    recipe: Path = DEFAULT_RECIPE,
    /,
    *,
    settings: Set = (),
    url: str = "http://127.0.0.1:8080",
    rate: float = 100.0,
    units: int = 5000,
    seed: int = 0,
    label_delay: str = "2s",
    duration: str = "60s",
) -> None:
    """Simulate clients: seeded requests with unit ids, and their true labels some time later.

    A simulator and nothing else: rows come from the recipe's test split. What answers them is real.

    Args:
        recipe: The recipe whose model is asked.
        url: Address of the router.
        rate: Requests a second, on average (Poisson arrivals).
        units: How many different units ask.
        seed: What the schedule depends on.
        label_delay: How long after an answer its label is sent, such as 2s or 5m.
        duration: How long to go on, such as 60s or 10m.
    """
    from emberline.client import check_url
    from emberline.errors import InvalidOption
    from emberline.experiment import parse_duration
    from emberline.recipe import load_recipe
    from emberline.simulate.run import simulate_clients
    from emberline.simulate.traffic import Population

    path = find_recipe(recipe)
    loaded = load_recipe(path, settings)
    for option, value, hint in (
        ("--rate", rate, "100 sends a hundred requests a second, on average"),
        ("--units", units, "5000 has as many different units ask"),
    ):
        if not 0 < value < math.inf:
            raise InvalidOption("simulate", option, value, "a number above 0", hint=hint)
    check_url("simulate", "--url", url, hint="http://127.0.0.1:8080 is where `emberline up` has its router")
    population = Population(
        seed=seed,
        rate=rate,
        num_units=units,
        duration_s=parse_duration(duration, "--duration", above=0),
        label_delay_s=parse_duration(label_delay, "--label-delay"),
    )
    simulate_clients(loaded, path, url, population)
