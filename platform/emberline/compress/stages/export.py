"""Export: packages of the model for each backend, each proven before it is kept, an interpreted program as the last."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from emberline.artifact import PROBE, Package, to_json
from emberline.compress import kernels
from emberline.compress.agreement import References, require_agreement
from emberline.compress.backends import aoti, aoti_cuda, onnx, openvino
from emberline.compress.context import Context
from emberline.compress.probe import make_probe
from emberline.compress.program import trace
from emberline.compress.state import State
from emberline.data.tokens import free_tokens
from emberline.errors import EmberlineError, MissingTool, StageFailed
from emberline.recipe import Export, ExportBackend

EXPORTED = "exported.pt2"
OWN: ExportBackend = "aoti"

_BUILDERS: dict[ExportBackend, Callable[..., Package]] = {  # in the order of the chain, before anything is measured
    "aoti-native": partial(aoti.compile_package, native=True),
    "aoti": aoti.compile_package,
    "aoti-cuda": aoti_cuda.compile_package,
    "onnx": onnx.convert_package,
    "openvino": openvino.convert_package,
}


def export(state: State, settings: Export, context: Context) -> State:
    """One package a backend, the batch dimension free and the tokens of texts.

    The last of the chain is the float program, exported and interpreted: an exported int8 program would hold its float
    weights as well, and be no faster. Our own portable package must be right; another backend that cannot make its
    package, or makes a wrong one, is left out with the reason.

    Raises:
        MissingTool: a backend of the recipe is not installed.
        StageFailed: a package is not what it claims, or disagrees with its reference.
    """
    folder = context.scratch
    folder.mkdir(parents=True, exist_ok=True)
    program = trace(state.model, context, stage="export")
    references = References(state, context)
    packages: list[Package] = []
    worst: dict[str, float] = {}
    left_out: dict[str, str] = {}
    tokens = {"tokens": free_tokens(context.recipe.preprocessing)}
    for backend in [known for known in _BUILDERS if known in context.backends]:
        try:
            made = _BUILDERS[backend](state, program, folder, settings.max_batch, context)
            package = made.model_copy(update=tokens)
            kernels.require_kernels(
                package.int8_kernels,
                len(state.int8_layers),
                package.file,
                exactly=package.backend == "aoti",
                repeated=[name for name, calls in Counter(state.int8_layers).items() if calls > 1],
            )
            worst[package.file] = require_agreement(state, package, folder, context, references)
        except MissingTool:
            raise
        except Exception as error:  # whatever a foreign converter raises is why its package is missing
            if backend == OWN or len(context.backends) == 1:
                raise
            left_out[backend] = _one_line(error)
            context.log.say(f"export: {backend} is left out: {left_out[backend]}")
        else:
            packages.append(package)
    if not packages:
        raise StageFailed("export", f"no backend made a package: {left_out}")
    packages.append(_interpreted(program, folder, settings.max_batch).model_copy(update=tokens))
    worst[EXPORTED] = require_agreement(state, packages[-1], folder, context, references)
    probe = make_probe(state, tuple(packages), folder, context)
    (folder / PROBE).write_bytes(to_json(probe))
    note = {
        "int8_kernels": {package.file: package.int8_kernels for package in packages},
        "promised": len(state.int8_layers),
        "relative_error": worst,
        "left_out": left_out,
    }
    return state.after(packages=tuple(packages), folder=folder, note=note)


def _interpreted(program: torch.export.ExportedProgram, folder: Path, max_batch: int) -> Package:
    torch.export.save(program, folder / EXPORTED)
    return Package(file=EXPORTED, backend="exported", precision="fp32", max_batch=max_batch, torch=torch.__version__)


def _one_line(error: Exception) -> str:
    if isinstance(error, EmberlineError):
        return error.fact
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
