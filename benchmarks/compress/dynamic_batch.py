"""What a free batch dimension costs: one int8 package for all batch sizes against one made for each."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _pipeline import BATCH_SIZES

from emberline import assets
from emberline.compress.backends.aoti import int8_convolutions_write_channels_last
from emberline.compress.target import MARCH, SIMD_BITS, this_machine
from emberline.measure.worker import time_interleaved
from emberline.models.resnet import resnet18

TARGET = "at most 7 % at batch 1 and 2 % at batch 8, CPU time, ResNet-18 in int8"
TRIALS = 1
ROUNDS = 15
PIXELS = 224


def trial(folder: Path, number: int) -> dict[str, Any]:
    torch.manual_seed(number)
    torch.set_num_threads(1)
    model = resnet18().eval()
    open_package = assets.handler_module("ember_backends").open_package
    packages = {"dynamic": _build(model, folder / "dynamic.pt2", 8, dynamic=True)}
    packages |= {
        f"static {size}": _build(model, folder / f"static{size}.pt2", size, dynamic=False) for size in BATCH_SIZES
    }
    programs = {name: open_package("aoti", path, print) for name, path in packages.items()}
    found: dict[str, Any] = {}
    for size in BATCH_SIZES:
        batch = (np.random.default_rng(0).standard_normal((size, 3, PIXELS, PIXELS), np.float32),)
        both = [programs["dynamic"], programs[f"static {size}"]]
        dynamic, static = time_interleaved(both, [[batch], [batch]], ROUNDS, 300.0)
        ratio = float(np.median(np.array(dynamic["cpu_ms"]) / np.array(static["cpu_ms"])))
        found[str(size)] = {
            "dynamic_ms": float(np.median(dynamic["cpu_ms"])),
            "static_ms": float(np.median(static["cpu_ms"])),
            "penalty": ratio - 1,
        }
    return found


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    penalties = {size: float(np.median([one[size]["penalty"] for one in trials])) for size in trials[0]}
    return {"penalty": penalties, "reached": penalties["1"] <= 0.07 and penalties["8"] <= 0.02}


def _build(model: torch.nn.Module, path: Path, rows: int, *, dynamic: bool) -> Path:
    """As `emberline compress` builds it, but for the batch dimension."""
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torch._inductor import aoti_compile_and_package, config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = (torch.randn(rows, 3, PIXELS, PIXELS),)
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},) if dynamic else None
    quantizer = x86.X86InductorQuantizer()
    reduce_range = this_machine().reduce_range
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=reduce_range))
    options = {"freezing": True, "cpp.march": MARCH, "cpp.simdlen": SIMD_BITS, "cpp.threads": 1}
    with torch.no_grad(), config.patch(options), int8_convolutions_write_channels_last():
        graph = torch.export.export(model, example, dynamic_shapes=shapes).module()
        graph.graph.eliminate_dead_code()
        graph.recompile()
        prepared = prepare_pt2e(graph, quantizer)
        prepared(*example)
        program = torch.export.export(convert_pt2e(prepared), example, dynamic_shapes=shapes)
        aoti_compile_and_package(program, package_path=str(path))
    return path
