"""Holm's step-down adjustment: of several claims, one that is false is made with probability at most alpha.

Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 1979. With p-values that
are valid at every look it holds at every look.
"""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values, in the order given: a claim stands where its own is at most alpha."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps) if p.size else steps
    return tuple(adjusted.tolist())
