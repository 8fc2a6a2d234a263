"""Pruning: whole channels by the dependency graph, so that the net is really smaller; or weights set to zero."""

import torch
from torch import nn

from emberline import models
from emberline.artifact import ChannelEdit
from emberline.compress import layers, masks
from emberline.compress.context import Context
from emberline.compress.program import require_forward
from emberline.compress.state import State
from emberline.compress.widths import choose_multiple
from emberline.errors import StageFailed
from emberline.recipe import Prune


def prune(state: State, settings: Prune, context: Context) -> State:
    """Removes `ratio` of the channels of each group, or sets `ratio` of the weights to zero.

    Raises:
        InvalidSetting: an ignored layer is not there.
        StageFailed: nothing could be removed, or the outputs changed shape.
    """
    model = state.model.eval()
    require_forward(model, context.example(2), "prune")
    if settings.method != "structured":
        masked, note = masks.set_zeros(model, settings, context, state.masked)
        return state.after(model=model, masked=masked, note=note)
    if settings.round_to == "measured":
        multiple, measured = choose_multiple(model, settings, context)
    else:
        multiple, measured = settings.round_to, {}
    before = count_parameters(model)
    edits, widths = remove_channels(model, settings, multiple, context.example(2))
    note = {"parameters_before": before, "groups": len(edits), "round_to": multiple, "widths": widths}
    return state.after(
        model=model,
        edits=(*state.edits, *edits),
        note={**note, **({"measured": measured} if measured else {})},
    )


def remove_channels(
    model: nn.Module, settings: Prune, multiple: int, example: tuple[torch.Tensor, ...]
) -> tuple[tuple[ChannelEdit, ...], dict[str, str]]:
    """Structured pruning, in place: the edits that make it again, and the width of each changed layer before and after.

    Channels of the least magnitude go, each together with all that is coupled to it; layers that make the model's
    outputs stay whole.
    """
    import torch_pruning

    before, outputs, widths = count_parameters(model), _shapes(model, example), _widths(model)
    named = layers.matching(model, settings.ignored_layers, stage="prune", key="ignored_layers")
    with torch.enable_grad():  # torch-pruning follows autograd to see which layers feed which
        pruner = torch_pruning.pruner.BasePruner(
            model,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=settings.ratio,
            round_to=multiple,
            ignored_layers=[*named.values(), *layers.kept_whole(model), *layers.output_layers(model, example)],
        )
        pruner.step()
    model.zero_grad(set_to_none=True)
    if count_parameters(model) == before:
        raise StageFailed(
            "prune",
            f"ratio {settings.ratio:g} with round_to {multiple} removed no channel of this model",
            hint="a smaller round_to, or a larger ratio; attention heads and layers inside functions are not pruned",
        )
    if _shapes(model, example) != outputs:
        raise StageFailed("prune", f"outputs changed shape from {outputs} to {_shapes(model, example)}")
    now = _widths(model)
    changed = {name: f"{width} → {now[name]}" for name, width in widths.items() if now[name] != width}
    return models.edits_of(pruner.pruning_history()), changed


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _widths(model: nn.Module) -> dict[str, int]:
    """How many outputs each layer with weights has."""
    return {name: len(layer.weight) for name, layer in model.named_modules() if isinstance(layer, layers.WEIGHTED)}


def _shapes(model: nn.Module, example: tuple[torch.Tensor, ...]) -> list[tuple[int, ...]]:
    with torch.no_grad():
        answer = model(*example)
    return [tuple(output.shape) for output in (answer if isinstance(answer, tuple | list) else (answer,))]
