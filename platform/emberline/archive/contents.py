"""What goes into an archive: the handler, the packages, and the papers that say what it is."""

import shutil
from pathlib import Path
from typing import Any

import orjson

from emberline import assets, storage
from emberline.archivefile import CARD, LINEAGE
from emberline.artifact import DESCRIPTION, PROBE, Artifact, Probe, to_json
from emberline.errors import CorruptPaper, EmberlineError, MissingFile
from emberline.paper import MANIFEST, Manifest, read_manifest
from emberline.recipe import Archive, load_recipe

# keys of request bodies, and TorchServe's name of a raw one: an input of that name could not be told from them
RESERVED_INPUTS = ("inputs", "instances", "body")
SHARED_PREFIX = "ember_"
RECIPE = "recipe.yaml"  # a run's copy of what it was trained by


def stage(
    folder: Path,
    artifact: Path,
    manifest: Manifest,
    description: Artifact,
    settings: Archive,
    *,
    cascade: dict[str, Any] | None = None,
) -> None:
    """Puts all files but the handler's own into `folder`, flat, as TorchServe unpacks them.

    Args:
        cascade: what the model card tells of the cascade whose last pass this is.

    Raises:
        EmberlineError: the artifact cannot be served.
    """
    check_servable(artifact, description)
    for name in (DESCRIPTION, PROBE, *(package.file for package in description.packages)):
        shutil.copyfile(artifact / name, folder / name)
    for module in sorted(assets.folder("handlers").glob(f"{SHARED_PREFIX}*.py")):
        shutil.copyfile(module, folder / module.name)
    (folder / LINEAGE).write_text(f"{manifest.model_dump_json(indent=2)}\n", encoding="utf-8")
    card = model_card(manifest, description, settings, _training(artifact, manifest))
    if cascade is not None:
        card["cascade"] = cascade
    (folder / CARD).write_bytes(orjson.dumps(card, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def expect(folder: Path, answer: Any) -> None:
    """Has the archive's probe expect what a user's handler answers to it."""
    probe = Probe.model_validate_json((folder / PROBE).read_bytes())
    (folder / PROBE).write_bytes(to_json(probe.model_copy(update={"answer": answer})))


def check_servable(artifact: Path, description: Artifact) -> None:
    """Refuses an artifact that no handler could serve."""
    if not description.packages:
        raise EmberlineError(
            "has weights and no package to serve", place=artifact, hint="emberline compress exports packages"
        )
    for package in description.packages:
        if Path(package.file).name != package.file:
            raise EmberlineError(
                f"package {package.file} is in a folder of its own; TorchServe's are flat", place=artifact
            )
    if not (artifact / PROBE).is_file():
        raise MissingFile(artifact / PROBE, "the probe", hint="emberline compress writes one")
    for spec in description.preprocessing.inputs:
        if spec.name in RESERVED_INPUTS:
            raise EmberlineError(
                f"an input is named {spec.name!r}, which request bodies use otherwise",
                place=artifact,
                hint="name it otherwise in the recipe: preprocessing.inputs",
            )


def model_card(
    manifest: Manifest, description: Artifact, settings: Archive, training: dict[str, Any] | None
) -> dict[str, Any]:
    """What a person who finds the archive wants to know; the same artifact always gives the same card.

    Args:
        training: what its run tells of the training and the data; None where the run is gone.
    """
    return {
        "model": settings.model,
        "version": settings.versions[manifest.name],
        "licence": settings.licence,
        "artifact": {"name": manifest.name, "digest": manifest.digest, "created": manifest.created},
        "run": next((ancestor.name for ancestor in manifest.lineage if ancestor.kind == "run"), None),
        "recipe": manifest.recipe,
        "code": manifest.code,
        "factory": description.model.factory,
        "inputs": [spec.model_dump(mode="json") for spec in description.preprocessing.inputs],
        "labels": list(description.labels),
        "task": description.task,
        "data_digest": manifest.facts.get("data_digest"),
        "training": training,
        "packages": [package.model_dump(mode="json") for package in description.packages],
        "measurement": None if description.measurement is None else description.measurement.model_dump(mode="json"),
        "stages": list(description.stages),
    }


def _training(artifact: Path, manifest: Manifest) -> dict[str, Any] | None:
    """Facts and data of the very run that the artifact comes from, which is where the artifact's folder is."""
    run = artifact.parent.parent
    if not (run / MANIFEST).is_file():
        return None
    found = read_manifest(run, "run")
    if found.as_ancestor() not in manifest.lineage:
        return None  # trained again since: what is there now says nothing of this artifact
    entry, recipe = found.files.get(RECIPE), run / RECIPE
    if entry is None:
        return found.facts
    if not recipe.is_file():
        raise MissingFile(recipe, "the run's recipe", hint="restore the file, or train again")
    if (got := storage.content_hash(recipe)) != entry.xxh3:
        raise CorruptPaper(recipe, f"xxh3 {got}", f"xxh3 {entry.xxh3}", hint="restore the file, or train again")
    return {**found.facts, "data": load_recipe(recipe).data.model_dump(mode="json")}
