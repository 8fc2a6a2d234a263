"""What one `emberline compress` works on, and the steps it comes down to. No torch until a context is asked for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberline import assets
from emberline.artifact import Artifact, read_artifact
from emberline.compress.plan import Step, base_key, choose_backends, plan, require_order
from emberline.compress.target import Target, this_machine
from emberline.errors import InvalidSetting, MissingFile
from emberline.paper import Manifest
from emberline.recipe import PICTURE_TASKS, Compress, ExportBackend, Recipe, Variant, load_recipe
from emberline.runlog import RunLog, warn

if TYPE_CHECKING:
    from emberline.compress.context import Context
    from emberline.compress.state import State

TRAINED = "trained"
CACHE = ".cache"


@dataclass(frozen=True)
class Planned:
    """One way to make an artifact; `because` says why its backends are not the recipe's, where they are not."""

    variant: Variant
    steps: list[Step]
    backends: tuple[ExportBackend, ...]
    because: str | None


@dataclass(frozen=True)
class Job:
    """What one `emberline compress` works on.

    Attributes:
        path: the recipe's file; its folder is where the user's modules are.
        folder: of the run.
        parent: manifest of the trained artifact.
    """

    path: Path
    recipe: Recipe
    settings: Compress
    folder: Path
    parent: Manifest
    trained: Artifact
    target: Target
    log: RunLog

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def cache(self) -> Path:
        return self.artifacts / CACHE

    def names(self) -> list[str]:
        """The artifacts to be made, the baseline first."""
        return sorted(self.settings.artifacts, key=lambda name: name != self.settings.baseline)

    def plan(self, name: str, stages: tuple[object, ...] | None = None) -> Planned:
        """The steps of an artifact, from the recipe's stages or from those of a fallback."""
        variant = self.settings.artifacts[name]
        if stages is not None:
            variant = variant.model_copy(update={"stages": stages})
        backends, because = choose_backends(variant, self.target)
        if because:
            self.log.say(f"{name}: {because}")
        base = base_key(self.recipe, self.parent.digest, self.target, self.path.parent)
        steps = plan(
            name,
            variant,
            recipe=self.recipe,
            settings=self.settings,
            base=base,
            backends=backends,
            search=self.path.parent,
        )
        return Planned(variant, steps, backends, because)

    def context(self, planned: Planned) -> "Context":
        from emberline.compress.context import Context
        from emberline.compress.quiet import quiet_torch

        quiet_torch()
        if self.settings.device == "cuda":  # where packages are opened when they are held against their reference
            os.environ[assets.handler_module("ember_backends").DEVICE_VARIABLE] = "cuda:0"
        return Context(
            recipe=self.recipe,
            settings=self.settings,
            search=self.path.parent,
            target=self.target,
            backends=planned.backends,
            log=self.log,
            trained=lambda: self.first_state().model,
            max_batch=planned.variant.export.max_batch,
        )

    def first_state(self) -> "State":
        """The trained model, rebuilt for each artifact: stages change it in place."""
        from emberline import models
        from emberline.compress.state import State

        model = models.build(self.artifacts / TRAINED, self.trained, self.path.parent)
        return State(model=model, edits=self.trained.edits)


def open_job(path: Path, settings: Sequence[str], runs: Path) -> Job:
    """Reads recipe and trained artifact.

    Raises:
        InvalidSetting: the recipe has no compress section, stages stand in an order that cannot work, or another model
            was trained.
        MissingFile: the model was not trained.
    """
    recipe = load_recipe(path, settings)
    if recipe.compress is None:
        raise InvalidSetting(path, "compress", None, "a compress section", hint="recipes/digits.yaml has one")
    for name, variant in recipe.compress.artifacts.items():
        # of fallbacks too: told now, not after the hours that come before they are needed
        for stages in (variant.stages, *variant.fallbacks):
            require_order(name, variant.model_copy(update={"stages": stages}))
    folder = runs / recipe.run
    trained_folder = folder / "artifacts" / TRAINED
    if not trained_folder.is_dir():
        raise MissingFile(trained_folder, "the trained artifact", hint=f"emberline train {path}")
    parent, trained = read_artifact(trained_folder)
    _require_trained(path, recipe, trained)
    target = this_machine(recipe.compress.int8_for, recipe.compress.device)
    exact = recipe
    if recipe.train.batch_size == "auto":
        from emberline.train.fitting import as_trained  # brings torch along

        exact = as_trained(recipe, folder)
    if recipe.train.task == "ranking":
        warn("compression judges a ranking's rows one by one: accuracy is how many of them have their label, not NDCG")
    if recipe.train.task in PICTURE_TASKS:
        told = {"detection": "average precision at an overlap of one half", "segmentation": "intersection over union"}
        warn(f"accuracy is {told[recipe.train.task]} of each picture alone, and the mean over pictures")
    return Job(path, exact, recipe.compress, folder, parent, trained, target, RunLog(folder / "log.jsonl"))


def _require_trained(path: Path, recipe: Recipe, trained: Artifact) -> None:
    """The recipe's model is the one that was trained; rows that are prepared otherwise than in training are warned of.

    Raises:
        InvalidSetting: it is another, or has another number of labels.
    """
    hint = f"give the settings that it was trained with, or train this one: emberline train {path}"
    wanted, got = (_flat(one.model_dump(mode="json")) for one in (recipe.model, trained.model))
    for key in sorted({*wanted, *got}):
        if wanted.get(key) != got.get(key):
            required = f"{repr(got[key]) if key in got else 'none'}, as it was trained,"
            raise InvalidSetting(path, f"model.{key}", wanted.get(key), required, hint=hint)
    if len(recipe.labels) != len(trained.labels):
        required = f"{len(trained.labels)} labels, as it was trained with,"
        raise InvalidSetting(path, "labels", list(recipe.labels), required, hint=hint)
    if recipe.preprocessing != trained.preprocessing:
        warn(f"{path}: preprocessing is not that of the training; packages get rows as it is now")


def _flat(model: dict[str, Any]) -> dict[str, object]:
    return {"factory": model["factory"], **{f"arguments.{key}": one for key, one in model["arguments"].items()}}
