"""Rows that training, calibration and reports read, split once and for all.

A data source is a function named by the recipe that returns `Splits`. `Rows` is map-style: a length, and a row by index
as `(instance, label)`, where the instance is what a client would send (arrays or image bytes by input name). No torch.
"""

from emberline.data.ahead import Ahead
from emberline.data.order import order, order_of
from emberline.data.rows import ArrayRows, Instance, Rows, Splits, rows_from_arrays
from emberline.data.source import check_splits, load, load_checked
from emberline.data.subset import Subset

__all__ = [
    "Ahead",
    "ArrayRows",
    "Instance",
    "Rows",
    "Splits",
    "Subset",
    "check_splits",
    "load",
    "load_checked",
    "order",
    "order_of",
    "rows_from_arrays",
]
