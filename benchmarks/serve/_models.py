"""Models that the throughput keys serve: the artifact is made once, and every server runs the same package of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emberline import signing
from emberline.archive.store import write_archive
from emberline.recipe import Archive, Task

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "bench-serve"  # compiling takes a minute; `make clean` removes it
MAX_BATCH = 64


def mlp_artifact() -> Path:
    """64 → 256 → 10 numbers, compiled: so small that a server's own cost is nearly all there is."""

    def build() -> Any:
        from emberline.models.mlp import mlp

        return mlp(64, 10, hidden=(256,))

    row = [round(0.01 * number - 0.3, 2) for number in range(64)]
    preprocessing = {"inputs": [{"name": "x", "shape": [64]}]}
    return artifact("mlp", build, preprocessing, {"x": row}, [str(number) for number in range(10)])


def artifact(
    run: str,
    build: Callable[[], Any],
    preprocessing: Mapping[str, Any],
    instance: Mapping[str, Any],
    labels: Any = (),
    *,
    name: str = "fp32",
    task: Task = "classification",
) -> Path:
    """The artifact `name` of `build()` in a folder of the run's own, made when it is not there yet."""
    folder = CACHE / run / "artifacts" / name
    if (folder / "manifest.json").is_file():
        return folder
    import torch
    from torch._inductor import aoti_compile_and_package

    from emberline import assets, paper
    from emberline.artifact import DESCRIPTION, PROBE, Artifact, Package, Probe, to_json
    from emberline.compress.probe import answer_of
    from emberline.recipe import Model, Preprocessing

    torch.manual_seed(0)
    module = build().eval()
    recipe = Preprocessing.model_validate(preprocessing)
    row = assets.handler_module("ember_preprocessing").Preprocessing(recipe.model_dump())(instance)
    batch = tuple(torch.from_numpy(array)[None].repeat(2, *([1] * array.ndim)) for array in row)
    rows = torch.export.Dim("rows", min=1, max=MAX_BATCH)
    with torch.no_grad():
        program = torch.export.export(module, batch, dynamic_shapes=tuple({0: rows} for _ in batch))
        output = module(*(value[:1] for value in batch))[0].numpy()
    package = Package(
        file="model.pt2", backend="aoti", precision="fp32", max_batch=MAX_BATCH, torch=str(torch.__version__)
    )
    described = Artifact(
        model=Model(factory="emberline.models.mlp:mlp"),
        preprocessing=recipe,
        labels=tuple(labels),
        packages=(package,),
        task=task,
    )
    probe = Probe(
        instance=dict(instance),
        expected=tuple(output.flatten().tolist()),
        tolerance=1e-3,
        answer=answer_of(task, recipe, labels, output, instance),
    )
    with paper.write_paper(folder, "artifact", seed=0) as draft:
        aoti_compile_and_package(program, package_path=str(draft.folder / package.file))
        (draft.folder / DESCRIPTION).write_bytes(to_json(described))
        (draft.folder / PROBE).write_bytes(to_json(probe))
    return folder


def archived(artifact_folder: Path, folder: Path, model: str, version: str = "1.0") -> tuple[Path, Path]:
    """The artifact as a signed archive in `folder`; returns it and the folder of its keys."""
    keys = signing.create_keys(folder / f"keys-{model}")
    settings = Archive.model_validate({"model": model, "versions": {artifact_folder.name: version}})
    stored = write_archive(artifact_folder, settings, folder / "recipe.yaml", store=folder / "store", keys=keys)
    return stored.path, keys.public.parent
