"""The versions that compete."""

from emberline.paper import Frozen
from emberline.recipe import Name, Version

TOTAL_WEIGHT = 10_000
"""What the weights of an experiment's variants sum to."""


class Variant(Frozen):
    name: Name
    version: Version
    control: bool = False
