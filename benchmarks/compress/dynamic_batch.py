"""What a free batch dimension costs: one package for all batch sizes against one made for each.

ResNet-18 in int8 at 224 pixels is what the target is about. In fp32 at 32 pixels, where packing the weights is most of
the work, a third package shows what torch makes of a free dimension when Emberline does not pack them beforehand.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _pipeline import BATCH_SIZES

from emberline import assets
from emberline.compress.backends.compiling import cpu_options
from emberline.compress.backends.constants import constants_aligned
from emberline.compress.backends.packing import convolutions_packed
from emberline.compress.target import this_machine
from emberline.measure.worker import time_interleaved
from emberline.models.resnet import resnet18

TARGET = "at most 7 % at batch 1 and 2 % at batch 8, CPU time, ResNet-18 in int8"
TRIALS = 3
ROUNDS = 15


def trial(folder: Path, number: int) -> dict[str, Any]:
    torch.manual_seed(number)
    torch.set_num_threads(1)
    model = resnet18().eval()
    return {
        "int8 at 224": _compare(model, folder / "int8", 224, int8=True),
        "fp32 at 32": _compare(model, folder / "fp32", 32, int8=False),
    }


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the trials, each of packages compiled anew."""
    penalties = {
        net: {
            size: {key: float(np.median([one[net][size][key] for one in trials])) for key in found}
            for size, found in by_size.items()
        }
        for net, by_size in trials[0].items()
    }
    target = penalties["int8 at 224"]
    return {**penalties, "reached": target["1"]["penalty"] <= 0.07 and target["8"]["penalty"] <= 0.02}


def _compare(model: torch.nn.Module, folder: Path, pixels: int, *, int8: bool) -> dict[str, dict[str, float]]:
    """By batch size, milliseconds of CPU time for each package, and the median of the rounds' ratios less 1."""
    folder.mkdir()
    make = {"dynamic": (8, True, True), **{f"static {size}": (size, False, True) for size in BATCH_SIZES}}
    if not int8:
        make["dynamic by torch alone"] = (8, True, False)
    programs = {}
    for name, (rows, dynamic, packed) in make.items():
        path = folder / f"{name.replace(' ', '_')}.pt2"
        _build(model, path, (rows, 3, pixels, pixels), int8=int8, dynamic=dynamic, packed=packed)
        programs[name] = assets.handler_module("ember_backends").open_package("aoti", path, print)
    found: dict[str, dict[str, float]] = {}
    for size in BATCH_SIZES:
        batch = (np.random.default_rng(0).standard_normal((size, 3, pixels, pixels), np.float32),)
        names = [name for name in programs if not name.startswith("static") or name == f"static {size}"]
        timed = time_interleaved([programs[name] for name in names], [[batch]] * len(names), ROUNDS, 300.0)
        cpu = {name.removesuffix(f" {size}"): np.array(one["cpu_ms"]) for name, one in zip(names, timed, strict=True)}
        found[str(size)] = {f"{name} ms": float(np.median(ms)) for name, ms in cpu.items()}
        found[str(size)]["penalty"] = float(np.median(cpu["dynamic"] / cpu["static"])) - 1
    return found


def _build(
    model: torch.nn.Module, path: Path, shape: tuple[int, ...], *, int8: bool, dynamic: bool, packed: bool
) -> None:
    """As `emberline compress` builds it, but for the batch dimension and the packing."""
    from torch._inductor import aoti_compile_and_package, config

    example = (torch.randn(shape),)
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},) if dynamic else None
    with (
        torch.no_grad(),
        config.patch(cpu_options(1)),
        constants_aligned(),
        convolutions_packed() if packed else nullcontext(),
    ):
        program = torch.export.export(model, example, dynamic_shapes=shapes)
        if int8:
            program = torch.export.export(_quantized(program, example), example, dynamic_shapes=shapes)
        aoti_compile_and_package(program, package_path=str(path))


def _quantized(program: torch.export.ExportedProgram, example: tuple[torch.Tensor, ...]) -> torch.nn.Module:
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = x86.X86InductorQuantizer()
    reduce_range = this_machine().reduce_range
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=reduce_range))
    graph = program.module()
    graph.graph.eliminate_dead_code()
    graph.recompile()
    prepared = prepare_pt2e(graph, quantizer)
    prepared(*example)
    converted: torch.nn.Module = convert_pt2e(prepared)
    return converted
