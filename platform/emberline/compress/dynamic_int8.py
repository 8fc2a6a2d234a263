"""Dynamic int8 of linear layers: weights a scale a channel, activations a scale a row, measured as they come.

By row, so that an answer does not depend on what else is in the batch.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from emberline.compress.context import Context
from emberline.compress.program import trace
from emberline.errors import StageFailed


def dynamic_program(
    model: nn.Module, skipped: Sequence[str], context: Context
) -> tuple[torch.export.ExportedProgram, tuple[str, ...]]:
    """The program, and the layers it computes in int8.

    Raises:
        StageFailed: there is no linear layer to quantize.
    """
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    chosen = [n for n, layer in model.named_modules() if isinstance(layer, nn.Linear) and n not in skipped]
    if not chosen:
        hint = "int8 with scales from calibration rows covers convolutions as well"
        raise StageFailed("quantize", "the model has no linear layer for int8_dynamic to quantize", hint=hint)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        quantize_(changed, Int8DynamicActivationInt8WeightConfig(), filter_fn=lambda _layer, name: name in chosen)
        program = trace(changed, context, stage="quantize")
    if context.target.vnni is None:
        context.log.say("quantize: this CPU has no VNNI, where int8_dynamic is exact and slower than floating point")
    return program, tuple(chosen)
