"""Static int8 quantization after training: scales from calibration rows, weights per channel."""

import warnings
from typing import Any

import torch

from emberline.compress import kernels
from emberline.compress.context import Context
from emberline.compress.program import trace
from emberline.compress.state import State
from emberline.errors import StageFailed
from emberline.recipe import Quantize

_CALIBRATION_BATCH = 64


def quantize(state: State, settings: Quantize, context: Context) -> State:
    """Calibrates and converts the float graph; nothing may stay in floating point that int8 was promised for.

    Raises:
        StageFailed: the model cannot be traced, has nothing to quantize, or a layer was left out; names the layers.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchao about its own internals
        graph: torch.fx.GraphModule = trace(state.model, context, stage="quantize").module()
        graph.graph.eliminate_dead_code()  # else the quantizer stumbles over a dead node
        graph.recompile()
        promised = kernels.promised_layers(graph)
        left = kernels.float_layers(graph)
        if not promised:
            raise StageFailed("quantize", "the model has no convolution or linear layer to quantize")
        prepared = prepare_pt2e(graph, _quantizer(context.target.reduce_range))
        inputs = [torch.from_numpy(array) for array in context.training_rows(settings.calibration_rows)]
        batch = min(_CALIBRATION_BATCH, context.max_batch)
        for start in range(0, len(inputs[0]), batch):
            prepared(*[array[start : start + batch] for array in inputs])
        converted = convert_pt2e(prepared)
        missed = kernels.unquantized_layers(converted)
        if missed:
            raise StageFailed(
                "quantize",
                f"{len(missed)} of {len(promised)} layers stayed in floating point: {', '.join(missed)}",
                hint="these layers are built in a way the quantizer does not know; leave the quantize stage out",
            )
        program = trace(converted, context, stage="quantize")
    if left:
        context.log.say(f"quantize: {', '.join(left)} stay in floating point: no int8 kernel computes such layers")
    return state.after(
        quantized=program,
        calibration_rows=len(inputs[0]),
        note={
            "reduce_range": context.target.reduce_range,
            "int8_layers": promised,
            "float_layers": left,
        },
    )


def _quantizer(reduce_range: bool) -> Any:
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=reduce_range))
    return quantizer
