"""Which handler an archive gets: one of emberline's by what the model takes, or the user's own once it was checked."""

import json
import sys
import tempfile
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from emberline import assets, process
from emberline.archive.contents import SHARED_PREFIX
from emberline.artifact import Artifact
from emberline.errors import EmberlineError, InvalidSetting, MissingFile
from emberline.recipe import PICTURE_TASKS

OWN = ("tensor", "image", "text", "ranking", "detection", "segmentation")
_INSPECTION = Path(__file__).with_name("inspection.py")
_INSPECTION_TIMEOUT_S = 120
# names of TorchServe's own handlers: an error in a file of that name would be answered by starting those instead
_BUILT_IN = (
    "base_handler",
    "dali_image_classifier",
    "image_classifier",
    "image_segmenter",
    "object_detector",
    "text_classifier",
    "text_handler",
    "trt_llm_handler",
    "vision_handler",
    "vllm_handler",
)


class UnusableHandler(EmberlineError):
    """A user's handler file that TorchServe could not serve from the archive."""


def choose(setting: str, description: Artifact, recipe: Path) -> Path:
    """The handler's file.

    Args:
        setting: `auto`, one of `OWN`, or a path.
        recipe: the recipe's file, from whose folder a path starts.

    Raises:
        InvalidSetting: the handler cannot take the model's inputs, or make an answer of its outputs.
        MissingFile: there is no such file.
    """
    kinds, task = [spec.kind for spec in description.preprocessing.inputs], description.task
    fitting = "image" if "image" in kinds else "text" if "text" in kinds else "tensor"
    own = task if task in PICTURE_TASKS else None
    chosen = (own or fitting) if setting == "auto" else setting
    if chosen in OWN and (own or chosen in PICTURE_TASKS) and chosen != own:
        required = f"`{own}` or `auto`, as the task is that," if own else f"train.task: {chosen}"
        raise InvalidSetting(recipe, "archive.handler", setting, required)
    if chosen == "image" and kinds[0] != "image":
        raise InvalidSetting(recipe, "archive.handler", setting, "`tensor` or `auto`, as the first input is none,")
    # numbers and rankings come as JSON alone; the other two take that as well
    if chosen in ("tensor", "text") and chosen != fitting:
        raise InvalidSetting(
            recipe, "archive.handler", setting, f"`{fitting}` or `auto`, as {_has(fitting)} among the inputs,"
        )
    if chosen in OWN:
        return assets.folder("handlers") / f"{chosen}_handler.py"
    path = recipe.parent / setting
    if not path.is_file():
        raise MissingFile(
            path, "the handler", hint=f"archive.handler is auto, {', '.join(OWN)}, or a path beside the recipe"
        )
    return path


def _has(kind: str) -> str:
    return {"tensor": "there are numbers alone", "image": "there is an image", "text": "there is a text"}[kind]


def is_own(path: Path) -> bool:
    """Whether a handler is the user's and not one of emberline's."""
    return path.resolve().parent != assets.folder("handlers").resolve()


def check(path: Path, files: Path) -> Any:
    """Imports a user's handler as TorchServe will, and asks it the probe: in a process of its own, among the archive's
    files alone.

    Returns:
        Its answer, which `serve` expects of it; an empty object where it answers otherwise each time.

    Raises:
        UnusableHandler: says what TorchServe would stumble over.
    """
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UnusableHandler("is no name of a Python module", place=path, hint="name it like my_handler.py")
    if path.stem in _BUILT_IN:
        raise UnusableHandler(
            "has the name of one of TorchServe's own handlers, which would stand in for it unnoticed",
            place=path,
            hint=f"name it my_{path.stem}.py",
        )
    if path.stem.startswith(SHARED_PREFIX) or path.stem.removesuffix("_handler") in (*OWN, "cascade"):
        raise UnusableHandler("has the name of a file of emberline's in the archive", place=path, hint="rename it")
    with tempfile.TemporaryDirectory(prefix="emberline-handler-") as name:
        report, output = Path(name, "report.json"), Path(name, "output")
        command = [sys.executable, "-I", _INSPECTION, path.resolve(), files.resolve(), report]
        child = process.start([str(part) for part in command], name="check of the handler", cwd=files, log=output)
        try:
            child.wait(_INSPECTION_TIMEOUT_S)
        except TimeoutExpired as error:
            raise UnusableHandler(
                f"took more than {_INSPECTION_TIMEOUT_S} s to import and to answer the probe", place=path
            ) from error
        finally:
            child.stop()
        if not report.is_file():
            raise UnusableHandler(
                f"ended the process that imported it: {output.read_text(errors='replace')[-500:].strip()}", place=path
            )
        found: dict[str, Any] = json.loads(report.read_bytes())
    if fault := found["fault"]:
        raise UnusableHandler(fault["fact"], place=path, hint=fault["hint"])
    first, second = found["answers"]
    return first if first == second else {}
