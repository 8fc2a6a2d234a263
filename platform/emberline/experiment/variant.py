"""The versions that compete."""

from emberline.experiment.declared import Declared
from emberline.recipe import Name, Version

TOTAL_WEIGHT = 10_000
"""What the weights of an experiment's variants sum to."""


class Variant(Declared):
    name: Name
    version: Version
    control: bool = False
