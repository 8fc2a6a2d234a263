"""The recipe as a whole."""

from pydantic import Field, model_validator

from emberline.paper import digest_of
from emberline.recipe.archive import Archive
from emberline.recipe.compress import Compress
from emberline.recipe.data import Data
from emberline.recipe.fields import Name, Section
from emberline.recipe.model import Model
from emberline.recipe.preprocessing import Preprocessing
from emberline.recipe.serve import Serve
from emberline.recipe.stages import Distill
from emberline.recipe.train import PICTURE_TASKS, Train

_MOST_CLASSES = 256  # as handlers/ember_masks.py has it


class Recipe(Section):
    run: Name
    seed: int = Field(default=0, ge=0, lt=2**63)
    model: Model
    data: Data
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the model's outputs."""
    train: Train = Train()
    compress: Compress | None = None
    archive: Archive | None = None
    serve: Serve = Serve()
    experiment: str | None = None
    """The Experiment file, from the recipe's folder."""

    @model_validator(mode="after")
    def _places_in_pictures(self) -> "Recipe":
        """What tasks of places in pictures need, and what knows nothing of them."""
        task = self.train.task
        if task not in PICTURE_TASKS:
            return self
        if self.preprocessing.inputs[0].kind != "image" or not self.labels:
            raise ValueError(f"task {task} needs an image as the first input, and labels")
        if task == "segmentation" and len(self.labels) > _MOST_CLASSES:
            raise ValueError(f"{len(self.labels)} labels; a mask of one byte a pixel has at most {_MOST_CLASSES}")
        if self.compress is not None:
            variants = self.compress.artifacts.values()
            chains = [stages for one in variants for stages in (one.stages, *one.fallbacks)]
            if self.compress.search is not None or any(isinstance(one, Distill) for stages in chains for one in stages):
                raise ValueError(f"compress: distillation and search know classes and rankings, not task {task}")
        if self.archive is not None and self.archive.cascades:
            raise ValueError(f"archive.cascades: a cascade sends on rows of classes or rankings, not of task {task}")
        return self

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))
