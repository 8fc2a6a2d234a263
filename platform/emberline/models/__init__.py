"""Modules from their names: a recipe's model freshly made, or an artifact's rebuilt with its edits and weights."""

from emberline.models.build import build, create, failing_layer, resolve
from emberline.models.edits import apply_edits, edits_of
from emberline.models.example import example_inputs

__all__ = ["apply_edits", "build", "create", "edits_of", "example_inputs", "failing_layer", "resolve"]
