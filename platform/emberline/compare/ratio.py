"""A ratio of two sums over units, such as revenue per purchase, by the delta method.

Source: Deng, Knoblich & Lu, "Applying the Delta Method in Metric Analytics", KDD 2018, eq. 4: the ratio R = ȳ / x̄ has,
to first order, the variance of the mean of the linearised values (y - R x) / x̄.
"""

import math

from emberline.compare.joint import JointMoments
from emberline.compare.moments import Moments


def linearised(sums: JointMoments) -> Moments:
    """Moments of the values whose mean is the ratio and whose variance is the ratio's; mean NaN where x sums to 0."""
    if not sums.count or not sums.x.mean:
        return Moments(sums.count, math.nan, math.nan)
    ratio = sums.y.mean / sums.x.mean
    m2 = sums.y.m2 - 2 * ratio * sums.cross + ratio * ratio * sums.x.m2
    return Moments(sums.count, ratio, max(0.0, m2) / sums.x.mean**2)
