"""How fast, how large and how often right: artifacts side by side, in one process made for that alone."""

from emberline.measure.session import Candidate, measure
from emberline.measure.table import print_table
from emberline.measure.timing import Timing, speedup

__all__ = ["Candidate", "Timing", "measure", "print_table", "speedup"]
