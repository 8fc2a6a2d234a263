"""Under which names and versions artifacts are archived."""

from emberline.recipe.cascade import Cascade
from emberline.recipe.fields import Name, Section, Version


class Archive(Section):
    model: Name
    """The model's name at the router: /predictions/{model}."""
    versions: dict[Name, Version]
    """Version of each artifact."""
    cascades: dict[Name, Cascade] = {}
    """Further versions, each made of several artifacts."""
    handler: str = "auto"
    """`auto`, `tensor`, `image`, `text`, `ranking`, `detection`, `segmentation`, or the path of the user's own file,
    from the recipe's folder."""
    licence: str = "unspecified"
