"""Which net is trained: a function of the user's own code (found beside the recipe file) or of emberline's."""

from typing import Any

from emberline.recipe.fields import Reference, Section


class Model(Section):
    factory: Reference
    arguments: dict[str, Any] = {}
