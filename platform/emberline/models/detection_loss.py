"""The loss of a detector whose candidates lie on a grid: what its cells say of classes, and how well boxes fit.

Source: Lin et al., Focal Loss for Dense Object Detection (2017), equation 5; Rezatofighi et al., Generalized
Intersection over Union (2019), algorithm 1; which cells answer for an object as in Tian et al., FCOS (2019), section
3.1, with the centre sampling of its later versions.
Legend of shapes: B rows, G and J cells down and across, M objects, K classes, F = 4 + K.
"""

import torch
from torch.nn import functional

_RADIUS = 1.5  # cells around an object's middle that answer for it
_FOCUS, _BALANCE = 2.0, 0.5  # gamma and alpha of the focal loss
_BOXES = 2.0  # weight of the boxes' part


def detection(outputs_BGJF: torch.Tensor, targets_BM5: torch.Tensor) -> torch.Tensor:  # noqa: N803 - shape suffixes
    """Focal loss of all cells, and 1 - GIoU of those that answer for an object; the mean over pictures.

    Args:
        outputs_BGJF: sides of boxes as fractions of the picture, and numbers before the sigmoid.
        targets_BM5: class (-1 where there is no object), left, top, right, bottom.
    """
    outputs = outputs_BGJF.float()
    boxes, logits = outputs[..., :4].flatten(1, 2), outputs[..., 4:].flatten(1, 2)
    which, answers = assigned(targets_BM5, outputs.shape[1], outputs.shape[2])
    truth = targets_BM5.gather(1, which.unsqueeze(2).expand(-1, -1, targets_BM5.shape[2]))
    wanted = functional.one_hot(truth[..., 0].long().clamp(min=0), logits.shape[2]) * answers.unsqueeze(2)
    counts = answers.sum(1).clamp(min=1)
    classes = _focal(logits, wanted.float()).sum((1, 2)) / counts
    fit = ((1 - generalised_overlap(boxes, truth[..., 1:])) * answers).sum(1) / counts
    return (classes + _BOXES * fit).mean()


def assigned(targets_BM5: torch.Tensor, down: int, across: int) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: N803
    """Which object each cell answers for, (B, G·J), and whether it answers for one at all.

    A cell answers for an object whose middle is within 1.5 cells of its own, where it lies inside of the box; for the
    smallest where there are several. The cell of an object's middle always may, however small the object is.
    """
    device = targets_BM5.device
    y = ((torch.arange(down, device=device) + 0.5) / down).view(1, 1, -1, 1)
    x = ((torch.arange(across, device=device) + 0.5) / across).view(1, 1, 1, -1)
    left, top, right, bottom = (targets_BM5[..., side, None, None] for side in range(1, 5))
    away_x, away_y = (x - (left + right) / 2).abs() * across, (y - (top + bottom) / 2).abs() * down
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    own = (away_x <= 0.5) & (away_y <= 0.5)  # noqa: PLR2004 - half a cell
    near = (inside & (away_x <= _RADIUS) & (away_y <= _RADIUS)) | own
    areas = torch.where(near & (targets_BM5[..., 0, None, None] >= 0), (right - left) * (bottom - top), torch.inf)
    least, which = areas.flatten(2).min(dim=1)
    return which, least < torch.inf


def generalised_overlap(ones: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Generalised intersection over union of boxes (…, 4) with their counterparts, -1 to 1."""
    shared = (torch.minimum(ones[..., 2:], others[..., 2:]) - torch.maximum(ones[..., :2], others[..., :2])).clamp(
        min=0
    )
    hull = (torch.maximum(ones[..., 2:], others[..., 2:]) - torch.minimum(ones[..., :2], others[..., :2])).prod(-1)
    common = shared.prod(-1)
    areas = [(one[..., 2:] - one[..., :2]).clamp(min=0).prod(-1) for one in (ones, others)]
    union = areas[0] + areas[1] - common
    return common / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def _focal(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    plain = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    score = torch.sigmoid(logits)
    missed = wanted * (1 - score) + (1 - wanted) * score
    return (wanted * _BALANCE + (1 - wanted) * (1 - _BALANCE)) * missed**_FOCUS * plain
