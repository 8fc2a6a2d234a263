"""A run's folder: which training it belongs to, and whether that has ended."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from emberline import storage
from emberline.errors import EmberlineError, InvalidSetting
from emberline.paper import MANIFEST, Manifest, digest_of, read_manifest
from emberline.recipe import Recipe, parse_model, read_yaml
from emberline.runlog import read_events
from emberline.train.summary import anything_kept

LOG = "log.jsonl"
RECIPE = "recipe.yaml"
TRAINED = "artifacts/trained"
LAST = "artifacts/last"  # the last weights, where the trained ones are the best
_RUN = "run.json"
_OLD = "made by an earlier version of emberline, or altered"
_SECTIONS = {"run", "seed", "model", "data", "preprocessing", "labels", "train"}
# how training is carried out, not what it computes
_OPERATIONAL = {
    "checkpoint_every_s",
    "keep_checkpoints",
    "checkpoints",
    "max_restarts",
    "snapshot_every",
    "hang_after_s",
    "track",
}


@dataclass(frozen=True)
class RunFolder:
    """A prepared folder.

    Attributes:
        run_id: random; a folder that was removed and made again has another, so leftovers of the first are not used.
        digest: of what the training computes.
        anew: what changed since a start that left nothing to go on from, so that training starts anew; else empty.
        replaced: the id of that start, whose snapshots are litter.
    """

    path: Path
    run_id: str
    digest: str
    anew: str = ""
    replaced: str = ""

    @property
    def log(self) -> Path:
        return self.path / LOG


def training_of(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that decides what training computes."""
    whole = recipe.model_dump(mode="json", include=_SECTIONS)
    whole["train"] = {key: value for key, value in whole["train"].items() if key not in _OPERATIONAL}
    whole["data"] = {key: value for key, value in whole["data"].items() if key not in {"threads", "ahead"}}
    return whole


def training_digest(recipe: Recipe) -> str:
    return digest_of(training_of(recipe))


def prepare_folder(path: Path, recipe: Recipe, num_rows: int, teacher: str = "") -> RunFolder:
    """Makes the run's folder, or takes it up again.

    Args:
        num_rows: of the training data; the order of an epoch depends on it.
        teacher: digest of the artifact, or of the recorded answers, that `train.distill` names.

    Raises:
        EmberlineError: it holds a training of another recipe, finished or not, of other data, or by another teacher.
    """
    check_folder(path, recipe)
    anew = "" if holds_something(path) else _changes(path, recipe, num_rows)
    replaced = str(_description(path)["id"]) if anew else ""
    if anew or not (path / _RUN).is_file():
        said = recipe.model_dump(mode="json", exclude_unset=True)  # a default may be refused where it does nothing
        text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
        storage.write_bytes(path / RECIPE, text.encode())
        new = {"id": uuid.uuid4().hex, "training": training_digest(recipe), "rows": num_rows, "teacher": teacher}
        storage.write_bytes(path / _RUN, orjson.dumps(new))
    description = _description(path)
    if description.get("rows", num_rows) != num_rows:
        raise EmberlineError(
            f"the training data had {description['rows']} rows when this run was started; now they are {num_rows}",
            place=path,
            hint=f"bring the data back, or start another run (--set run={recipe.run}-2)",
        )
    if description.get("teacher", teacher) != teacher:
        hint = f"bring the teacher back, or start another run (--set run={recipe.run}-2)"
        raise EmberlineError("the teacher is another one than when this run was started", place=path, hint=hint)
    return RunFolder(path, str(description["id"]), str(description["training"]), anew, replaced)


def check_folder(path: Path, recipe: Recipe) -> None:
    """Refuses a folder that holds something of a training of another recipe; names what differs."""
    if not (what := _changes(path, recipe)) or not holds_something(path):
        return
    hint = f"start another run (--set run={recipe.run}-2), take the change back, or remove {path}"
    raise EmberlineError(f"this run was started with another recipe ({what})", place=path, hint=hint)


def holds_something(path: Path) -> bool:
    """Whether there is anything to go on from: a checkpoint, a result, or steps whose state memory may still have."""
    if (path / MANIFEST).exists() or (path / "artifacts").exists() or any(path.glob("checkpoints/step-*")):
        return True
    return anything_kept(read_events(path / LOG))


def _changes(path: Path, recipe: Recipe, num_rows: int | None = None) -> str:
    """What differs from the training that the folder was made for; empty where nothing does."""
    if not (path / _RUN).is_file():
        return ""
    description = _description(path)
    rows = description.get("rows", num_rows)
    if description["training"] == training_digest(recipe):
        return f"training rows: {rows} → {num_rows}" if num_rows is not None and rows != num_rows else ""
    changes: list[str] = []
    if (path / RECIPE).is_file():
        try:
            then = parse_model(Recipe, read_yaml(path / RECIPE), path / RECIPE)
        except InvalidSetting as error:
            return f"{_OLD}: {error.fact}"
        differences(training_of(then), training_of(recipe), "", changes)
    what = "; ".join(changes[:3]) + ("; …" if len(changes) > 3 else "")  # noqa: PLR2004 - three say enough
    return what or _OLD


def _description(path: Path) -> dict[str, Any]:
    """What the folder says of itself.

    Raises:
        EmberlineError: nothing that can be read.
    """
    try:
        found = orjson.loads((path / _RUN).read_bytes())
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not {"id", "training"} <= found.keys():
        hint = f"remove the folder, or start another run (--set run={path.name}-2)"
        raise EmberlineError(f"{_OLD}: {_RUN} cannot be read", place=path, hint=hint)
    return found


def training_in(path: Path) -> str | None:
    """The digest of the training that a folder was made for; None where it is no run's."""
    return str(_description(path)["training"]) if (path / _RUN).is_file() else None


def finished_manifest(path: Path, recipe: Recipe) -> Manifest | None:
    """The manifest of this training, where it has already ended and left its artifact."""
    check_folder(path, recipe)
    if not (path / MANIFEST).is_file() or not (path / TRAINED / MANIFEST).is_file():
        return None
    manifest = read_manifest(path, "run")
    return manifest if manifest.facts.get("training") == training_digest(recipe) else None


def differences(then: Any, now: Any, key: str, found: list[str]) -> None:
    """Appends `key: then → now` for each leaf that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            differences(then.get(name), now.get(name), f"{key}.{name}".lstrip("."), found)
    elif then != now:
        found.append(f"{key}: {then} → {now}")
