"""Structured pruning: whole channels, by the dependency graph, so that the net is really smaller."""

from difflib import get_close_matches

import torch
from torch import nn

from emberline import models
from emberline.compress.context import Context
from emberline.compress.state import State
from emberline.errors import InvalidSetting, StageFailed
from emberline.recipe import Prune

_PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


def prune(state: State, settings: Prune, context: Context) -> State:
    """Removes `ratio` of the channels of each group, those of the least magnitude; the output layer stays whole.

    Raises:
        InvalidSetting: an ignored layer is not there.
        StageFailed: nothing could be removed, or the outputs changed shape.
    """
    import torch_pruning

    model = state.model.eval()
    example = context.example(2)
    before, outputs = count_parameters(model), _shapes(model, example)
    ignored = [*_layers_named(model, settings.ignored_layers), output_layer(model, example)]
    with torch.enable_grad():  # torch-pruning follows autograd to see which layers feed which
        pruner = torch_pruning.pruner.BasePruner(
            model,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=settings.ratio,
            round_to=settings.round_to,
            ignored_layers=ignored,
        )
        pruner.step()
    model.zero_grad(set_to_none=True)
    after = count_parameters(model)
    if after == before:
        raise StageFailed(
            "prune",
            f"ratio {settings.ratio:g} with round_to {settings.round_to} removed no channel of this model",
            hint="a smaller round_to, or a larger ratio; attention heads and layers inside functions are not pruned",
        )
    if _shapes(model, example) != outputs:
        raise StageFailed("prune", f"outputs changed shape from {outputs} to {_shapes(model, example)}")
    edits = models.edits_of(pruner.pruning_history())
    return state.after(
        model=model,
        edits=(*state.edits, *edits),
        note={"parameters_before": before, "parameters": after, "groups": len(edits)},
    )


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def output_layer(model: nn.Module, example: tuple[torch.Tensor, ...]) -> nn.Module:
    """The last layer with weights to run, whose channels are the classes and must stay."""
    order: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda module, *_: order.append(module))
        for layer in model.modules()
        if isinstance(layer, _PRUNABLE)
    ]
    try:
        with torch.no_grad():
            model(*example)
    finally:
        for hook in hooks:
            hook.remove()
    if not order:
        raise StageFailed("prune", "the model has no convolution or linear layer to prune")
    return order[-1]


def _layers_named(model: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    layers = dict(model.named_modules())
    for name in names:
        if name not in layers:
            near = get_close_matches(name, layers, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}?" if near else None
            raise InvalidSetting("stage prune", "ignored_layers", name, "a layer of the model", hint=hint)
    return [layers[name] for name in names]


def _shapes(model: nn.Module, example: tuple[torch.Tensor, ...]) -> list[tuple[int, ...]]:
    with torch.no_grad():
        answer = model(*example)
    return [tuple(output.shape) for output in (answer if isinstance(answer, tuple | list) else (answer,))]
