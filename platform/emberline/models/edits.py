"""Structural edits: what pruning removed, recorded and replayed.

An edit is one entry of torch-pruning's history: a layer, whether its outputs or its inputs lost channels, and which.
Everything coupled to them (batch norms, following layers, residual branches) follows from the dependency graph.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from emberline.artifact import ChannelEdit
from emberline.errors import EmberlineError


def apply_edits(model: nn.Module, edits: Sequence[ChannelEdit], example: tuple[torch.Tensor, ...]) -> None:
    """Removes channels from `model`, in place, in the order of the edits.

    Args:
        example: inputs of one row, to trace the dependency graph with.

    Raises:
        EmberlineError: a layer named by an edit is not there.
    """
    if not edits:
        return
    import torch_pruning

    layers = dict(model.named_modules())
    for edit in edits:
        if edit.layer not in layers:
            hint = "was the model's factory changed since the artifact was written?"
            raise EmberlineError(f"layer {edit.layer!r} is not there", place=type(model).__name__, hint=hint)
    with torch.enable_grad():  # the graph is traced by autograd, whatever the caller has switched off
        graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
        graph.load_pruning_history([(edit.layer, edit.out_channels, list(edit.removed)) for edit in edits])


def edits_of(history: Iterable[tuple[str, bool, Any]]) -> tuple[ChannelEdit, ...]:
    """The edits in torch-pruning's `pruning_history()`."""
    return tuple(
        ChannelEdit(layer=layer, out_channels=out_channels, removed=tuple(int(index) for index in removed))
        for layer, out_channels, removed in history
    )
