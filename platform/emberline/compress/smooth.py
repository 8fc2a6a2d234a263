"""SmoothQuant: outliers of activations move into the weights, which int8 scales by channel and bear them better.

Source: Xiao et al., SmoothQuant (2023), equation 4. The inverse is a multiplication of its own before each layer, not
folded into the norm before it: in a post-norm transformer the residual reads that norm as well.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

INVERSE = "inverse"  # the buffer of a smoothed layer that its input is multiplied by


def _divide_input(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return inputs[0] * layer.get_buffer(INVERSE), *inputs[1:]


def smoothed(model: nn.Module, rows: Sequence[torch.Tensor], alpha: float) -> tuple[nn.Module, dict[str, Any]]:
    """A copy with every linear layer smoothed by what calibration rows show, and what to report."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    largest = _largest_inputs(model, names, rows)
    changed = copy.deepcopy(model)
    for name in names:
        layer = changed.get_submodule(name)
        assert isinstance(layer, nn.Linear)  # noqa: S101 - the names are those of linear layers
        inputs, weights = largest[name].clamp(min=1e-5), layer.weight.detach().abs().amax(dim=0).clamp(min=1e-5)
        scale = inputs**alpha / weights ** (1 - alpha)
        with torch.no_grad():
            layer.weight.mul_(scale)
        # a hook, since the quantizer knows linear layers by their class
        layer.register_buffer(INVERSE, 1 / scale)
        layer.register_forward_pre_hook(_divide_input)
    return changed.eval(), {"smoothed": len(names), "smooth": alpha}


def _largest_inputs(model: nn.Module, names: list[str], rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """For each layer the largest magnitude that each channel of its input had."""
    found: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def look(_layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen = inputs[0].abs().flatten(0, -2).amax(dim=0)
            found[name] = torch.maximum(found[name], seen) if name in found else seen

        return look

    hooks = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    try:
        with torch.no_grad():
            model(*rows)
    finally:
        for hook in hooks:
            hook.remove()
    return found
