"""The recipe as a whole."""

from pydantic import Field

from emberline.paper import digest_of
from emberline.recipe.archive import Archive
from emberline.recipe.compress import Compress
from emberline.recipe.data import Data
from emberline.recipe.fields import Name, Section
from emberline.recipe.model import Model
from emberline.recipe.preprocessing import Preprocessing
from emberline.recipe.serve import Serve
from emberline.recipe.train import Train


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

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))
