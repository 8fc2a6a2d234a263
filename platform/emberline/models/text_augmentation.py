"""Augmentation of texts as token ids: functions for `train.augment` and for the `augment` of a distillation.

Token 0 is padding. Legend of shapes: B rows, L tokens.
"""

import torch

_LOST = 0.1  # of the tokens
_SPLICED = 0.5  # of the rows


def drop_tokens(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Takes every tenth token away by chance, all but a text's first and last; what follows moves up.

    The first input is (B, L) of ids; others stay as they are.
    """
    ids, *others = inputs
    places, lengths = torch.arange(ids.shape[1]), (ids != 0).sum(1, keepdim=True)
    ends = (places == 0) | (places == lengths - 1)
    kept = (ids != 0) & (ends | (torch.rand(ids.shape) >= _LOST))
    order = (~kept).to(torch.int8).argsort(dim=1, stable=True)
    return (ids * kept).gather(1, order), *others


def splice(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Gives one half of the texts the end of another one of the batch, then drops tokens.

    A text that was spliced no longer says what its label says: this is for a student whose teacher is asked what it
    makes of that, with `hard: 0`. The first input is (B, L) of ids; others stay as they are.
    """
    ids, *others = inputs
    rows, width = ids.shape
    partners = ids[torch.randperm(rows)]
    begins, resumes = _places_within(ids), _places_within(partners)  # own tokens kept; where the partner's end starts
    places = torch.arange(width)
    theirs = places - begins + resumes
    ends = partners.gather(1, theirs.clamp(0, width - 1)) * (theirs < width)
    spliced = torch.where(places < begins, ids, ends)
    return drop_tokens((torch.where(torch.rand(rows, 1) < _SPLICED, spliced, ids), *others))


def _places_within(ids: torch.Tensor) -> torch.Tensor:
    """(B, 1): a place by chance in each text, after its first token."""
    lengths = (ids != 0).sum(1, keepdim=True)
    return 1 + (torch.rand(lengths.shape) * (lengths - 1).clamp(min=0)).long()
