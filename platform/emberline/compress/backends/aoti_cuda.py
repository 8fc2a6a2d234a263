"""AOTInductor for an NVIDIA GPU: one package for the compute capability at hand. Written, and never run on a GPU yet.

torchao's quantized and sparse layers exist on their device only, so the float model is made again here as the quantize
stage promised it: int8 with activations measured as they come, fp8 alike, halves, or sparse halves after pruning 2:4.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emberline.artifact import Package
from emberline.compress import gpu, kernels
from emberline.compress.context import Context
from emberline.compress.embeddings import with_int8_tables
from emberline.compress.halves import TYPES, Half
from emberline.compress.masks import is_two_of_four
from emberline.compress.program import trace
from emberline.compress.state import State


def compile_package(
    state: State, _program: torch.export.ExportedProgram, folder: Path, max_batch: int, context: Context
) -> Package:
    """Compiles for this GPU.

    Raises:
        MissingTool: there is none.
        StageFailed: it is too old for the precision.
    """
    from torch._inductor import aoti_compile_and_package, config

    architecture = gpu.require(context.target.capability, state.precision)
    file = f"{state.precision}.{architecture}.pt2"
    with torch.no_grad(), config.patch({"freezing": True}):
        program = trace(_on_gpu(state, context), context, stage="export", place=torch.device("cuda"))
        aoti_compile_and_package(program, package_path=str(folder / file))
    return Package(
        file=file,
        backend="aoti-cuda",
        precision=state.precision,
        max_batch=max_batch,
        needs=(architecture,),
        torch=torch.__version__,
        march=architecture,
        int8_kernels=kernels.count_kernels(folder / file),
    )


def _on_gpu(state: State, context: Context) -> nn.Module:
    model = copy.deepcopy(state.model).eval()
    if state.int8_tables:
        model, _ = with_int8_tables(model)
    # of all that pruning set zeros in, layers of two in every four: others may have been pruned by magnitude before
    twos = tuple(name for name in state.masked if is_two_of_four(model, (name,)))
    sparse, reason = gpu.is_sparse(twos, state.precision)
    if reason:
        context.log.say(f"export: {reason}")
    if sparse:
        gpu.require(context.target.capability, "2:4")
    if state.precision in TYPES:
        half = Half(model, TYPES[state.precision]).cuda()
        if sparse:
            _make_sparse(half.model, twos)
        return half
    model = model.cuda()
    if state.precision in ("int8", "fp8"):
        _quantize(model, state)
    return model


def _quantize(model: nn.Module, state: State) -> None:
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int8DynamicActivationInt8WeightConfig,
        PerRow,
        quantize_,
    )

    chosen: Any = (
        Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
        if state.precision == "fp8"
        else Int8DynamicActivationInt8WeightConfig()
    )
    quantize_(model, chosen, filter_fn=lambda _layer, name: name in state.int8_layers)


def _make_sparse(model: nn.Module, masked: tuple[str, ...]) -> None:
    from torchao.sparsity import semi_sparse_weight, sparsify_

    sparsify_(
        model, semi_sparse_weight(), filter_fn=lambda layer, name: isinstance(layer, nn.Linear) and name in masked
    )
