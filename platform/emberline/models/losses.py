"""Losses: from outputs and labels of one piece of a batch to its mean loss.

Legend of shapes: B rows, K outputs; of rankings B groups of L rows each, R = B·L rows; of pictures H height, W width.
"""

import torch
from torch.nn import functional


def cross_entropy(outputs_BK: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
    """Mean cross-entropy; labels are class indices."""
    return functional.cross_entropy(outputs_BK, labels_B)


def pixels(outputs_BKHW: torch.Tensor, labels_BHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
    """Mean cross-entropy of pixels plus 1 - Dice, so that small objects weigh as much as the ground around them.

    Dice is that of each class which a picture has, the mean over classes, then over pictures.

    Source: Milletari, Navab and Ahmadi, V-Net (2016), section 3, by class and with plain probabilities below the line.
    """
    outputs = outputs_BKHW.float()
    wanted = functional.one_hot(labels_BHW, outputs.shape[1]).movedim(-1, 1).to(outputs.dtype)
    shared = (torch.softmax(outputs, dim=1) * wanted).sum((2, 3))
    sizes = wanted.sum((2, 3))
    dice = 2 * shared / (torch.softmax(outputs, dim=1).sum((2, 3)) + sizes)
    there = sizes > 0
    return functional.cross_entropy(outputs, labels_BHW) + 1 - ((dice * there).sum(1) / there.sum(1)).mean()


def ndcg(outputs_RK: torch.Tensor, labels_BL: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
    """1 - NDCG, made differentiable: a row's rank is 1 + the sum of sigmoids of how far the others' scores are ahead.

    A group in which nothing is relevant has NDCG 1, so it teaches nothing.

    Args:
        labels_BL: relevance, 0 or more; -1 where a group has fewer rows than L.

    Source: Qin, Liu and Li, A general approximation framework for direct optimization of information retrieval measures
    (2010), equations 10 and 13, with gains that are the labels themselves, as the metric's are.
    """
    there = labels_BL >= 0
    scores = scores_of(outputs_RK).view(labels_BL.shape)
    gains = labels_BL.clamp(min=0).to(scores.dtype)
    # the row itself is among the others with a half, so 1/2 is what is missing to a rank
    ahead = torch.sigmoid(scores.unsqueeze(1) - scores.unsqueeze(2)) * there.unsqueeze(1)
    ranks = 0.5 + ahead.sum(2)
    places = torch.arange(2, gains.shape[1] + 2, device=gains.device, dtype=gains.dtype)
    ideal = (gains.sort(dim=1, descending=True).values / places.log2()).sum(1)
    reached = (gains / (1 + ranks).log2()).sum(1)
    return 1 - torch.where(ideal > 0, reached / ideal.clamp(min=1e-12), 1.0).mean()


def scores_of(outputs_RK: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
    """What rows are ranked by, as the ranking handler does: a lone output, or how probable the last class is."""
    outputs = outputs_RK.float() if outputs_RK.dtype in (torch.float16, torch.bfloat16) else outputs_RK
    return outputs[:, 0] if outputs.shape[1] == 1 else functional.log_softmax(outputs, dim=1)[:, -1]
