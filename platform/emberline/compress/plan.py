"""From a recipe's list of stages to the steps that run, each with a key that says what it depends on. No torch.

A step's key is a digest over the key before it, its settings, and what else it reads; so an equal key means equal work,
and a change repeats that step and those after it, no more.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import emberline
from emberline import storage
from emberline.compress.sources import code_digest, files_digest, rows_digest
from emberline.compress.target import Target
from emberline.errors import InvalidSetting
from emberline.paper import MANIFEST, digest_of
from emberline.recipe import (
    PICTURE_TASKS,
    Compress,
    Distill,
    Export,
    ExportBackend,
    Prune,
    Quantize,
    Recipe,
    Section,
    Variant,
)

_PACKAGE = Path(emberline.__file__).parent
STATE = "state.json"  # what a finished step leaves in its folder of the cache
_LIBRARIES = ("torch", "torchao", "torch-pruning", "onnxruntime", "openvino", "nncf")
# beside the stages and backends themselves, what decides what they make
_STAGE_MODULES = (
    "agreement", "aware", "context", "dynamic_int8", "embeddings", "gpu", "halves", "inheriting", "kernels", "layers",
    "masks", "probe", "program", "record", "sensitivity", "smooth", "state", "static_int8", "target", "teaching",
    "widths",
)  # fmt: skip
_COMPILED = ("aoti", "aoti-native", "aoti-cuda")

# step → module and function that does it; loaded when it has to run
FUNCTIONS = {
    "distill": "emberline.compress.stages.distill:distill",
    "prune": "emberline.compress.stages.prune:prune",
    "batch_norm": "emberline.compress.stages.batch_norm:re_estimate",
    "finetune": "emberline.compress.stages.finetune:finetune",
    "quantize": "emberline.compress.stages.quantize:quantize",
    "export": "emberline.compress.stages.export:export",
}


@dataclass(frozen=True)
class Step:
    """One stage as it will run.

    Attributes:
        settings: the recipe's section, or None for steps that follow from another (batch-norm re-estimation).
        key: what it and all before it depend on, as a digest.
    """

    name: str
    settings: Section | None
    key: str


def plan(
    name: str,
    variant: Variant,
    *,
    recipe: Recipe,
    settings: Compress,
    base: str,
    backends: tuple[ExportBackend, ...],
    search: Path | None = None,
) -> list[Step]:
    """The steps of one artifact, batch-norm re-estimation after each pruning included.

    Raises:
        InvalidSetting: the stages stand in an order that cannot work.
    """
    require_order(name, variant)
    steps: list[Step] = []
    key = base
    for stage in variant.stages:
        also = _also_reads(stage, variant, recipe, settings, backends=backends, search=search)
        key = _key(key, stage.stage, stage, also)
        steps.append(Step(stage.stage, stage, key))
        if isinstance(stage, Prune):
            key = _key(key, "batch_norm", None, {})
            steps.append(Step("batch_norm", None, key))
    return steps


def require_order(name: str, variant: Variant) -> None:
    """Export comes last and once; what changes the float model comes before it is quantized."""
    kinds = [stage.stage for stage in variant.stages]
    place = f"compress.artifacts.{name}"
    if kinds.count("export") != 1 or kinds[-1] != "export":
        hint = "`- stage: export` makes the packages that are measured and served"
        raise InvalidSetting(place, "stages", kinds, "one export stage, as the last one,", hint=hint)
    if "quantize" in kinds and kinds.index("quantize") != len(kinds) - 2:
        hint = "pruning and fine-tuning change the float model, which would leave the quantized one behind"
        raise InvalidSetting(place, "stages", kinds, "quantize just before export, once,", hint=hint)
    students = [
        position for position, stage in enumerate(variant.stages) if isinstance(stage, Distill) and stage.student
    ]
    if students and students != [0]:
        hint = "a student is a net of its own, so what stages before it did to the other one would be lost"
        raise InvalidSetting(place, "stages", kinds, "distill with a student once, as the first one,", hint=hint)


def choose_backends(variant: Variant, target: Target) -> tuple[tuple[ExportBackend, ...], str | None]:
    """The backends to export for, and why they are not those of the recipe, if they are not."""
    wanted = variant.export.backends
    if wanted == "installed":
        # a native package computes with the same instructions as the portable one where vectors are no wider
        own: tuple[ExportBackend, ...] = ("aoti", "aoti-native") if target.wide else ("aoti",)
        if target.device == "cuda":
            return ("aoti-cuda",), None
        wanted = (*own, *target.installed)
    others = tuple(backend for backend in wanted if backend not in _COMPILED)
    if target.compiler or len(others) == len(wanted):
        return wanted, None
    kept: tuple[ExportBackend, ...] = others or ("onnx",)
    names = " and ".join({"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[backend] for backend in kept)
    verb = "takes" if len(kept) == 1 else "take"
    return kept, f"g++ is not installed, so nothing can be compiled ahead of time: {names} {verb} its place"


def base_key(recipe: Recipe, trained_digest: str, target: Target, search: Path | None) -> str:
    """What all steps depend on: weights, rows, how rows are prepared, this machine's target, versions, code."""
    return digest_of(
        {
            "trained": trained_digest,
            "model": recipe.model.model_dump(mode="json"),
            "data": recipe.data.model_dump(mode="json"),
            "preprocessing": recipe.preprocessing.model_dump(mode="json"),
            "seed": recipe.seed,
            "target": [target.vnni, target.compiler, target.native, target.device, target.capability],
            "libraries": {library: _version(library) for library in _LIBRARIES},
            "code": files_digest(_stage_code()),
            "users": code_digest((recipe.model.factory, recipe.data.source), search),
            "rows": rows_digest(recipe.data.arguments),
        }
    )


def _stage_code() -> list[Path]:
    """The code that decides what a stage makes; tables and reports may change without making it again."""
    here = _PACKAGE / "compress"
    return [
        *(here / "stages").glob("*.py"),
        *(here / "backends").glob("*.py"),
        *(here / f"{name}.py" for name in _STAGE_MODULES),
    ]


def _also_reads(
    stage: Section,
    variant: Variant,
    recipe: Recipe,
    settings: Compress,
    *,
    backends: tuple[ExportBackend, ...],
    search: Path | None,
) -> dict[str, Any]:
    if isinstance(stage, Export):
        task = recipe.train.task
        told = recipe.labels if task in PICTURE_TASKS else None  # by name in the probe's answer
        measured = {"batch_sizes": settings.batch_sizes, "threads": settings.threads}
        return {**measured, "backends": backends, "task": task, "labels": told}
    if isinstance(stage, Prune) and stage.round_to == "measured":
        return {"batch": settings.batch_sizes[0], "threads": settings.threads}
    if isinstance(stage, Quantize):
        traced = {"max_batch": variant.export.max_batch}  # of the batch that its program is traced for
        return traced if stage.aware_training is None else {**traced, **training_reads(recipe, search)}
    if isinstance(stage, Prune) and stage.method != "movement":
        return {}
    if isinstance(stage, Distill):
        return {**training_reads(recipe, search), "taught_by": _teaching(stage, search)}
    return training_reads(recipe, search)


def _teaching(stage: Distill, search: Path | None) -> dict[str, Any]:
    """Digests of what a distillation learns from, and of the code of student and augmentation."""
    paper = Path(stage.teacher or "") / MANIFEST
    recorded = Path(stage.recorded or "")
    return {
        "teacher": storage.content_hash(paper) if stage.teacher and paper.is_file() else None,
        "recorded": storage.content_hash(recorded) if recorded.is_file() else None,
        "student": code_digest([stage.student.factory if stage.student else None, stage.augment], search),
    }


def training_reads(recipe: Recipe, search: Path | None) -> dict[str, Any]:
    """What all that trains depends on: settings, the trainer's code, loss and augmentation."""
    return {
        "train": recipe.train.model_dump(mode="json"),
        "code": files_digest((_PACKAGE / "train").rglob("*.py")),
        "users": code_digest((recipe.train.loss, recipe.train.augment), search),
    }


def _key(before: str, name: str, settings: Section | None, also: dict[str, Any]) -> str:
    described = settings.model_dump(mode="json") if settings else None
    return digest_of({"before": before, "step": name, "settings": described, "reads": also})


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"
