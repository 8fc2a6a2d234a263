"""Embeddings whose table is stored as int8, one scale a row: rows are looked up first and made floats then."""

import copy

import torch
from torch import nn
from torch.nn import functional

_LARGEST = 127


class Int8Embedding(nn.Module):
    """Answers as the embedding it is made from, to within half a step of each row's scale.

    No compiler can fold the conversion into a table of floats, since which rows are converted depends on the input.
    """

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        weight = table.weight.detach()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / _LARGEST
        self.register_buffer("rows", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = functional.embedding(ids, self.get_buffer("rows"))
        return rows.to(self.get_buffer("scale").dtype) * functional.embedding(ids, self.get_buffer("scale"))


def with_int8_tables(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy with all embeddings as int8, and their names; the model itself where it has none.

    One with `max_norm` stays: it changes its table as it reads.
    """
    names = tuple(
        name for name, layer in model.named_modules() if isinstance(layer, nn.Embedding) and layer.max_norm is None
    )
    if not names:
        return model, ()
    changed = copy.deepcopy(model)
    for name in names:
        parent, _, last = name.rpartition(".")
        table = changed.get_submodule(name)
        assert isinstance(table, nn.Embedding)  # noqa: S101 - the names are those of embeddings
        setattr(changed.get_submodule(parent), last, Int8Embedding(table))
    return changed.eval(), names
