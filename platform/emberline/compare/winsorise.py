"""Bounds that draw in extreme values, so that one unit's outlier does not decide; chosen before the experiment.

Source: Dixon, "Simplified estimation from censored normal samples", Ann. Math. Statist. 1960: the k smallest values
become the next larger one, the k largest the next smaller one, k being a share of their number, rounded down.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bounds(values: ArrayLike, *, lower: float = 0.0, upper: float = 0.0) -> tuple[float, float]:
    """The values that a share `lower` of the smallest and `upper` of the largest are drawn in to.

    Raises:
        ValueError: there are no values, or the shares leave none between them.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    low, high = int(lower * ordered.size), int(upper * ordered.size)
    if min(low, high) < 0 or low + high >= ordered.size:
        raise ValueError(f"shares {lower:g} and {upper:g} of {ordered.size} values leave none")
    return float(ordered[low]), float(ordered[-1 - high])


def winsorise(values: ArrayLike, within: tuple[float, float]) -> NDArray[np.float64]:
    """Values below or above the bounds become the bounds."""
    return np.asarray(np.clip(np.asarray(values, dtype=np.float64), *within), dtype=np.float64)
