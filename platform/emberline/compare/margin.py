"""Where an interval lies beside a margin: superiority at margin 0, non-inferiority at a negative one.

Source: ICH E9, "Statistical principles for clinical trials", section 3.3.2: a treatment is not inferior when the whole
interval of its difference lies above the margin.
"""

from typing import Literal

from emberline.compare.confidence_sequence import Interval

Side = Literal["above", "below", "open"]


def side_of(interval: Interval, margin: float) -> Side:
    """`above` or `below` when the whole interval is there, `open` while it contains the margin."""
    if interval.lower > margin:
        return "above"
    return "below" if interval.upper < margin else "open"
