"""Writing an artifact's paper from the folder its last stage left. No torch."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emberline.artifact import DESCRIPTION, PROBE, Artifact, Package, read_artifact, to_json
from emberline.artifact import ChannelEdit as Edit
from emberline.compress.chain import Done
from emberline.compress.plan import STATE
from emberline.errors import EmberlineError
from emberline.paper import Manifest, write_paper
from emberline.recipe import Model, Recipe

_WEIGHTS = "model.safetensors"


def describe(recipe: Recipe, stages: Sequence[Done], because: str | None) -> Artifact:
    """`artifact.json` of a finished chain, not yet measured."""
    state = json.loads((stages[-1].folder / STATE).read_bytes())
    notes: list[dict[str, Any]] = [{"stage": one.name, **one.note} for one in stages]
    if because:
        notes[-1]["because"] = because
    return Artifact(
        model=Model.model_validate(state["factory"]) if state["factory"] else recipe.model,
        edits=tuple(Edit.model_validate(edit) for edit in state["edits"]),
        weights=_WEIGHTS,
        preprocessing=recipe.preprocessing,
        labels=recipe.labels,
        task=recipe.train.task,
        packages=tuple(Package.model_validate(package) for package in state["packages"]),
        stages=tuple(notes),
    )


def publish(target: Path, source: Path, artifact: Artifact, *, recipe: Recipe, parent: Manifest, key: str) -> bool:
    """Writes the paper, unless the very same one is there already.

    Returns:
        Whether it was written.
    """
    if _is_there(target, key):
        return False
    with write_paper(target, "artifact", recipe=recipe.digest, seed=recipe.seed, parent=parent) as draft:
        for name in (artifact.weights, PROBE, *(package.file for package in artifact.packages)):
            shutil.copyfile(source / str(name), draft.folder / str(name))
        (draft.folder / DESCRIPTION).write_bytes(to_json(artifact))
        draft.facts["key"] = key
        draft.facts["data_digest"] = parent.facts.get("data_digest")
        if artifact.measurement is not None:
            draft.facts["accuracy"] = artifact.measurement.accuracy
            draft.facts["size_bytes"] = artifact.measurement.size_bytes
    return True


def _is_there(target: Path, key: str) -> bool:
    """Whether the paper is whole and made of the same stages and measurement; a damaged one is written anew."""
    try:
        manifest, _ = read_artifact(target)
    except EmberlineError:
        return False
    return manifest.facts.get("key") == key
