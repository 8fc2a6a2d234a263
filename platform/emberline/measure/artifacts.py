"""What `emberline measure` is given: folders of artifacts, files of their packages, functions that make modules."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emberline import data
from emberline.artifact import DESCRIPTION, read_artifact
from emberline.data.prepared import Arrays, prepare
from emberline.errors import EmberlineError, InvalidOption
from emberline.measure.session import Candidate, Measured, ModuleCandidate, measure
from emberline.measure.table import print_table
from emberline.recipe import Task, load_recipe
from emberline.runlog import RunLog

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_INPUT = re.compile(r"(?P<dtype>float32|int64|uint8):(?P<shape>\d+(?:x\d+)*)")
_SEED = 0


def measure_artifacts(
    given: Sequence[str],
    *,
    rounds: int,
    batch_sizes: Sequence[int],
    threads: int,
    compiled: bool = False,
    inputs: Sequence[str] = (),
    recipe: Path | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Measured]:
    """Measures artifacts and modules against the first of them and prints the table.

    Args:
        given: folders of artifacts, files of their packages, or functions `module:function` that make a module.
        compiled: modules are measured by torch.compile as well.
        inputs: `dtype:3x224x224` of each input's row; random values take the place of the probes.
        recipe: the validation rows of this recipe take the place of the probes, and all are scored on them.
        settings: `key=value` laid over the recipe.

    Raises:
        InvalidOption: `compiled` without a module, `inputs` beside a recipe, or settings without one.
        EmberlineError: something given is neither, or a folder has no packages.
    """
    candidates = [one for text in given for one in _candidates(text, given, compiled=compiled)]
    if compiled and not any(isinstance(one, ModuleCandidate) for one in candidates):
        hint = "leave it out, or name the function that makes the module: mine:net"
        raise InvalidOption("emberline measure", "--compiled", True, "a module beside the artifacts", hint=hint)
    if not inputs and recipe is None and all(isinstance(one, ModuleCandidate) for one in candidates):
        hint = "for a photo: --input float32:3x224x224; with an artifact beside them, its probe is taken"
        raise EmberlineError("modules have no rows of their own to be timed on", place="--input", hint=hint)
    timed = partial(measure, candidates, batch_sizes, threads=threads, rounds=rounds, log=RunLog())
    if recipe is None:
        if settings:
            hint = "name the recipe whose rows they are of: --recipe FILE"
            raise InvalidOption("emberline measure", "--set", settings[0], "a recipe beside it", hint=hint)
        measured = timed(inputs=tuple(_random_row(text) for text in inputs) or None)
    else:
        if inputs:
            hint = "leave out one of them"
            raise InvalidOption("emberline measure", "--input", inputs[0], "no --recipe beside it", hint=hint)
        rows, labels, task = _validation(recipe, settings)
        measured = timed(inputs=rows, labels=labels, task=task)
    print_table(measured, candidates[0].name)
    return measured


def _candidates(text: str, others: Sequence[str], *, compiled: bool) -> list[Candidate | ModuleCandidate]:
    path = Path(text)
    if not path.exists() and _REFERENCE.fullmatch(text):
        eager = ModuleCandidate(text, text, Path.cwd())
        return [eager, ModuleCandidate(f"{text}, compiled", text, Path.cwd(), compiled=True)] if compiled else [eager]
    if path.is_file() and (path.parent / DESCRIPTION).is_file():
        return [_package(path)]
    return [_artifact(path, others)]


def _artifact(folder: Path, others: Sequence[str]) -> Candidate:
    _, artifact = read_artifact(folder)
    if not artifact.packages:
        raise EmberlineError("holds weights and no package", place=folder, hint="`emberline compress` makes packages")
    names = [Path(other).resolve().name for other in others]
    name = folder.resolve().name
    # two artifacts of one name, say of two runs, are told apart by their paths
    return Candidate(name if names.count(name) == 1 else str(folder), folder, artifact.model_dump(mode="json"))


def _package(path: Path) -> Candidate:
    """One package of an artifact, and no other of its chain."""
    _, artifact = read_artifact(path.parent)
    chosen = [package for package in artifact.packages if package.file == path.name]
    if not chosen:
        known = ", ".join(package.file for package in artifact.packages) or "none"
        raise EmberlineError("is no package of its artifact", place=path, hint=f"its packages: {known}")
    described = artifact.model_copy(update={"packages": tuple(chosen)})
    return Candidate(str(path), path.parent, described.model_dump(mode="json"))


def _validation(path: Path, settings: Sequence[str]) -> tuple[Arrays, NDArray[Any], Task]:
    """A recipe's validation rows and their labels, as models and measuring take them."""
    recipe = load_recipe(path, settings)
    rows = data.load_checked(recipe, path.parent).validation
    return *prepare(recipe, rows, range(len(rows))), recipe.train.task


def _random_row(text: str) -> NDArray[np.generic]:
    """One row of random values, the same at every call."""
    matched = _INPUT.fullmatch(text)
    if matched is None:
        hint = "such as float32:3x224x224"
        raise InvalidOption("measure", "--input", text, "dtype:shape of one row", hint=hint)
    shape, random = (1, *map(int, matched["shape"].split("x"))), np.random.default_rng(_SEED)
    if matched["dtype"] == "float32":
        return random.standard_normal(shape, np.float32)
    return random.integers(0, 256, shape).astype(matched["dtype"])
