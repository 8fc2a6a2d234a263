"""Which layers int8 hurts: how far the outputs move when one layer alone computes with rounded weights and inputs."""

from collections.abc import Iterable

import torch
from torch import nn

_LEVELS = 255  # of activations in 8 bits
_LARGEST = 127  # of weights


def sensitivity(model: nn.Module, names: Iterable[str], example: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Relative error of the first output, by layer, the largest first.

    Weights are rounded per output channel, the input per tensor, with the scales that these rows ask for. It costs one
    forward a layer and needs no conversion, so it ranks layers; it does not promise what the whole will lose.
    """
    with torch.no_grad():
        expected = _first(model(*example))
        errors = {name: _error_of(model, name, example, expected) for name in dict.fromkeys(names)}
    return dict(sorted(errors.items(), key=lambda entry: -entry[1]))


def _error_of(model: nn.Module, name: str, example: tuple[torch.Tensor, ...], expected: torch.Tensor) -> float:
    layer = model.get_submodule(name)
    weight = layer.get_parameter("weight")
    kept = weight.detach().clone()
    hook = layer.register_forward_pre_hook(lambda _layer, inputs: (_round_tensor(inputs[0]), *inputs[1:]))
    try:
        weight.copy_(round_channels(kept))
        moved = _first(model(*example)) - expected
    finally:
        hook.remove()
        weight.copy_(kept)
    return float(moved.norm() / expected.norm().clamp(min=torch.finfo(expected.dtype).tiny))


def round_channels(weight: torch.Tensor) -> torch.Tensor:
    scale = weight.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / _LARGEST
    scale = scale.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight / scale).round() * scale


def _round_tensor(values: torch.Tensor) -> torch.Tensor:
    low, high = values.min().clamp(max=0), values.max().clamp(min=0)
    scale = ((high - low) / _LEVELS).clamp(min=torch.finfo(values.dtype).tiny)
    return ((values - low) / scale).round() * scale + low


def _first(answer: torch.Tensor | tuple[torch.Tensor, ...] | list[torch.Tensor]) -> torch.Tensor:
    return answer[0] if isinstance(answer, tuple | list) else answer
