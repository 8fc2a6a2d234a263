"""The schedule of a simulation: who asks what, and when. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ask:
    """One request to come.

    Attributes:
        at_s: seconds after the start.
        unit: id of who asks.
        row: index into the test split.
    """

    number: int
    at_s: float
    unit: str
    row: int


@dataclass(frozen=True)
class Population:
    """Who asks, how often and for how long.

    Attributes:
        rate: requests a second, on average.
        label_delay_s: from an answer to its label.
    """

    seed: int
    rate: float
    num_units: int
    duration_s: float
    label_delay_s: float


def schedule(population: Population, num_rows: int) -> Iterator[Ask]:
    """Poisson arrivals; units and rows drawn evenly. Equal populations give equal schedules."""
    random = np.random.Generator(np.random.Philox(population.seed))
    now, number = 0.0, 0
    while (now := now + float(random.exponential(1 / population.rate))) < population.duration_s:
        unit, row = int(random.integers(population.num_units)), int(random.integers(num_rows))
        yield Ask(number, now, f"unit-{population.seed}-{unit:07d}", row)
        number += 1
