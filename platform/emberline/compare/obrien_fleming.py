"""O'Brien-Fleming's boundary for a decision planned at a number of units, safe under any number of looks before it.

Source: O'Brien & Fleming, "A multiple testing procedure for clinical trials", Biometrics 1979, in its limit of ever
more looks: the score process is a Brownian motion on [0, 1], stopped where it leaves ±b. The probability that it ever
does is the series of Erdős & Kac (1946); b = 2.2414 for 5 %. The interval at a look is the repeated confidence interval
of Jennison & Turnbull, "Interim analyses: the repeated confidence interval approach", JRSS B 1989.
"""

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_BISECTIONS = 80


def half_width(variance_of_mean: float, units: int, *, alpha: float, planned_units: int) -> float:
    """Half the width of the repeated confidence interval after `units` of `planned_units`.

    After the planned number there is no error left to spend; the boundary then widens, so that a look that comes a
    little late is safe, and waiting on gains nothing.
    """
    fraction = units / planned_units
    widening = 1 / math.sqrt(fraction) if fraction < 1 else math.sqrt(fraction)
    return boundary(alpha) * widening * math.sqrt(variance_of_mean)


@lru_cache(maxsize=256)
def boundary(alpha: float) -> float:
    """B with P(a Brownian motion leaves ±b before time 1) = alpha."""
    low, high = 0.1, 10.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if crossing_probability(middle) > alpha else (low, middle)
    return high


def crossing_probability(b: float) -> float:
    """Probability that a Brownian motion leaves ±b before time 1."""
    terms = math.ceil(10 / b) + 2
    steps = range(-terms, terms + 1)
    inside = math.fsum((-1.0) ** k * (_NORMAL.cdf((2 * k + 1) * b) - _NORMAL.cdf((2 * k - 1) * b)) for k in steps)
    return 1 - inside
