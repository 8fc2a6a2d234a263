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


def dynamic_layers(model: nn.Module) -> list[str]:
    """Names of the layers that are made int8.

    Raises:
        StageFailed: there is no linear layer to quantize.
    """
    found = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not found:
        hint = "int8 with scales from calibration rows covers convolutions as well"
        raise StageFailed("quantize", "the model has no linear layer for int8_dynamic to quantize", hint=hint)
    return found


def calls_of(model: nn.Module, calls: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    """Of a graph's calls those of chosen layers, each under the first of the names that its layer has."""
    first = {id(layer): name for name, layer in model.named_modules()}
    names = {name: first[id(layer)] for name, layer in model.named_modules(remove_duplicate=False)}
    return tuple(names[call] for call in calls if names.get(call) in chosen)


def dynamic_program(
    model: nn.Module, skipped: Sequence[str], context: Context
) -> tuple[torch.export.ExportedProgram, tuple[str, ...]]:
    """The program, and the layers it computes in int8.

    Raises:
        StageFailed: there is no linear layer to quantize, or torchao does not take one; names it.
    """
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    chosen = [name for name in dynamic_layers(model) if name not in skipped]
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name in chosen:
            layer = changed.get_submodule(name)
            try:
                quantize_(layer, Int8DynamicActivationInt8WeightConfig())
            except Exception as error:  # of a shape that torchao does not take, one input say
                fact = f"layer {name} ({layer}) cannot be made int8: {type(error).__name__}: {error}"
                raise StageFailed(
                    "quantize", fact, hint=f"leave it in floating point: skip_layers: [{name}]"
                ) from error
        program = trace(changed, context, stage="quantize")
    if context.target.vnni is None:
        context.log.say("quantize: this CPU has no VNNI, where int8_dynamic is exact and slower than floating point")
    return program, tuple(chosen)
