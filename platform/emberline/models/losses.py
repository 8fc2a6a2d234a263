"""Losses: from outputs and labels of one piece of a batch to its mean loss."""

import torch
from torch.nn import functional


def cross_entropy(outputs_BK: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
    """Mean cross-entropy. Legend: B rows, K classes; labels are class indices."""
    return functional.cross_entropy(outputs_BK, labels_B)
