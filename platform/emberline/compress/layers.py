"""Finding layers of a model: by name or pattern, by kind, by what the model itself asks for."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import nn

from emberline.errors import InvalidSetting, StageFailed

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def matching(model: nn.Module, patterns: Iterable[str], *, stage: str, key: str) -> dict[str, nn.Module]:
    """The layers that names or patterns (`layers.*.attention`) mean, by name.

    Raises:
        InvalidSetting: one means no layer; the nearest name is in the hint.
    """
    layers = {name: layer for name, layer in model.named_modules() if name}
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matched = {name: layer for name, layer in layers.items() if fnmatchcase(name, pattern)}
        if not matched:
            near = get_close_matches(pattern, layers, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}?" if near else None
            raise InvalidSetting(f"stage {stage}", key, pattern, "a layer of the model", hint=hint)
        found |= matched
    return found


def within(name: str, those: Iterable[str]) -> bool:
    """Whether a layer is one of those, or a part of one."""
    return any(name == one or name.startswith(f"{one}.") for one in those)


def kept_whole(model: nn.Module) -> list[nn.Module]:
    """Layers that the model's own parts name in `keep_whole`: their forward relies on the widths."""
    found: list[nn.Module] = []
    for part in model.modules():
        patterns = getattr(part, "keep_whole", ())
        found += [layer for name, layer in part.named_modules() if any(fnmatchcase(name, one) for one in patterns)]
    return found


def output_layers(model: nn.Module, example: tuple[torch.Tensor, ...]) -> list[nn.Module]:
    """The layers whose outputs are the model's answers, and so must keep their width.

    For each answer the last layer with weights that it comes out of as it is; else the last one to run.

    Raises:
        StageFailed: there is no layer with weights at all.
    """
    order: list[tuple[nn.Module, torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda module, _inputs, output: order.append((module, output)))
        for layer in model.modules()
        if isinstance(layer, WEIGHTED)
    ]
    try:
        with torch.no_grad():
            answer = model(*example)
    finally:
        for hook in hooks:
            hook.remove()
    if not order:
        raise StageFailed("prune", "the model has no convolution or linear layer to prune")
    answers = answer if isinstance(answer, tuple | list) else (answer,)
    found = [layer for one in answers for layer, output in order if output.data_ptr() == one.data_ptr()]
    return [order[-1][0], *found]
