"""What a student takes over from the trained net before it learns: parts of the same shape, or a table in two factors.

Source: Sanh et al., DistilBERT (2019), section 3, for every other layer; Eckart and Young (1936) for the two factors.
"""

from collections.abc import Mapping

import torch
from torch import nn

from emberline.compress import layers
from emberline.errors import InvalidSetting


def inherit(student: nn.Module, trained: nn.Module, parts: Mapping[str, str]) -> None:
    """Copies weights of parts, in place.

    Args:
        parts: the student's part, and the trained net's that it takes after, by name.

    Raises:
        InvalidSetting: a part is not there, or the two do not fit.
    """
    for own, theirs in parts.items():
        target, source = _part(student, own, "student's"), _part(trained, theirs, "trained net's")
        if isinstance(source, nn.Embedding) and isinstance(target, nn.Sequential):
            _factorise(source, target, own)
            continue
        try:
            target.load_state_dict(source.state_dict(), strict=True)
        except RuntimeError as error:
            got = " ".join(str(error).split())[:200]
            required = "a part of the trained net with the same weights"
            raise InvalidSetting("stage distill", f"inherit.{own}", theirs, required, hint=got) from error


def _factorise(source: nn.Embedding, target: nn.Sequential, name: str) -> None:
    """A narrower table and the matrix that widens its rows again: the best of that width, by singular values."""
    table, widen = (*target, None, None)[:2]
    weight = source.weight.detach()
    fits = isinstance(table, nn.Embedding) and isinstance(widen, nn.Linear) and len(table.weight) == len(weight)
    if not fits or not isinstance(table, nn.Embedding) or not isinstance(widen, nn.Linear):
        raise InvalidSetting("stage distill", f"inherit.{name}", target, "a table of as many rows and a linear layer")
    if widen.out_features != weight.shape[1]:
        required = f"a linear layer to {weight.shape[1]}, as wide as the trained net's table"
        raise InvalidSetting("stage distill", f"inherit.{name}", widen, required)
    left, singular, right = torch.linalg.svd(weight, full_matrices=False)
    kept = table.embedding_dim
    root = singular[:kept].sqrt()
    with torch.no_grad():
        table.weight.copy_(left[:, :kept] * root)
        widen.weight.copy_((root[:, None] * right[:kept]).T)


def _part(model: nn.Module, name: str, whose: str) -> nn.Module:
    return layers.matching(model, [name], stage="distill", key=f"inherit ({whose} part)")[name]
