"""Export: packages of the model for each backend, each proven before it is kept, an interpreted program as the last."""

import torch

from emberline.artifact import PROBE, Package, to_json
from emberline.compress import agreement, kernels
from emberline.compress.backends import aoti, onnx
from emberline.compress.context import Context
from emberline.compress.probe import make_probe
from emberline.compress.program import trace
from emberline.compress.state import State
from emberline.recipe import Export

EXPORTED = "exported.pt2"


def export(state: State, settings: Export, context: Context) -> State:
    """One dynamic-batch package a backend.

    The last of the chain is the float program, exported and interpreted: an exported int8 program would hold its float
    weights as well, and be no faster.

    Raises:
        StageFailed: a package is not what it claims, or disagrees with its reference.
    """
    folder = context.scratch
    folder.mkdir(parents=True, exist_ok=True)
    program = trace(state.model, context, stage="export")
    promised = len(kernels.promised_layers(program.module())) if state.quantized is not None else 0
    packages: list[Package] = []
    worst: dict[str, float] = {}
    for backend in context.backends:
        build = aoti.compile_package if backend == "aoti" else onnx.convert_package
        package = build(state, program, folder, settings.max_batch, context)
        kernels.require_kernels(package.int8_kernels, promised, package.file)
        worst[package.file] = agreement.require_agreement(state, package, folder, context)
        packages.append(package)
    torch.export.save(program, folder / EXPORTED)
    packages.append(
        Package(
            file=EXPORTED,
            backend="exported",
            precision="fp32",
            max_batch=settings.max_batch,
            torch=torch.__version__,
        )
    )
    worst[EXPORTED] = agreement.require_agreement(state, packages[-1], folder, context)
    probe = make_probe(state, tuple(packages), folder, context)
    (folder / PROBE).write_bytes(to_json(probe))
    note = {"int8_kernels": {package.file: package.int8_kernels for package in packages}, "promised": promised}
    return state.after(packages=tuple(packages), folder=folder, note={**note, "relative_error": worst})
