"""The recipe: one YAML file that says how a model is trained, compressed, archived and served.

Sections of all stages are typed here, without stage code: every verb reads the same file and uses its own section.
Models and data are named as `module:function`, of the user's own code (found beside the recipe file) or of emberline's.

recipe         the whole of it
model, data, preprocessing, train, compress, archive, serve    its sections, one a file
stages         what `compress` is a list of
teaching       what `train` and the distill stage share
cascade        what `archive` may serve as one version
fields         what all sections are made of
load           from a file to a recipe
yamlfile       from a file to a mapping
settings       `--set`
parse          from a mapping to a model, or to one clear error
"""

from emberline.recipe.archive import Archive
from emberline.recipe.cascade import Cascade, Pass
from emberline.recipe.compress import Compress, Gates, Search, Variant
from emberline.recipe.data import Data
from emberline.recipe.fields import Name, Section, Version
from emberline.recipe.load import lay_over, load_recipe
from emberline.recipe.model import Model
from emberline.recipe.parse import parse_model
from emberline.recipe.preprocessing import Input, Preprocessing, Step
from emberline.recipe.recipe import Recipe
from emberline.recipe.serve import Serve, Tuned
from emberline.recipe.settings import overlay
from emberline.recipe.stages import AwareTraining, Distill, Export, ExportBackend, Finetune, Prune, Quantize, Stage
from emberline.recipe.teaching import Distillation, Teaching
from emberline.recipe.train import METRICS, PICTURE_TASKS, EarlyStopping, Optimizer, Task, Train
from emberline.recipe.yamlfile import read_yaml

__all__ = [
    "METRICS",
    "PICTURE_TASKS",
    "Archive",
    "AwareTraining",
    "Cascade",
    "Compress",
    "Data",
    "Distill",
    "Distillation",
    "EarlyStopping",
    "Export",
    "ExportBackend",
    "Finetune",
    "Gates",
    "Input",
    "Model",
    "Name",
    "Optimizer",
    "Pass",
    "Preprocessing",
    "Prune",
    "Quantize",
    "Recipe",
    "Search",
    "Section",
    "Serve",
    "Stage",
    "Step",
    "Task",
    "Teaching",
    "Train",
    "Tuned",
    "Variant",
    "Version",
    "lay_over",
    "load_recipe",
    "overlay",
    "parse_model",
    "read_yaml",
]
