"""What detection and segmentation are judged by, held against numbers found by hand."""

import numpy as np
import pytest
import torch

from emberline.models import quality
from emberline.models.average_precision import found_in, mean_average_precision
from emberline.models.detection_loss import assigned, detection, generalised_overlap
from emberline.models.mean_iou import counted, mean_iou

A, B, ELSEWHERE = [0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.0, 0.6, 0.3, 0.9]


def told(*candidates, classes=2):
    """Raw outputs that say a box, a class and a score; all other classes have none."""
    rows = []
    for box, number, score in candidates:
        logits = [-20.0] * classes
        logits[number] = float(np.log(score / (1 - score)))
        rows.append([*box, *logits])
    return np.array(rows or [[0, 0, 0, 0, *([-20.0] * classes)]], np.float32)


def truth(*objects):
    rows = [[number, *box] for box, number in objects]
    return np.array([*rows, [-1, 0, 0, 0, 0]], np.float32)  # one line that only fills up


def test_average_precision_of_one_class_is_the_area_under_its_monotone_precision():
    # by score: wrong, right, right; of three objects, one never found. Precision 0, 1/2, 2/3: at both recalls 2/3
    pictures = [
        found_in(told((A, 0, 0.8), (ELSEWHERE, 0, 0.9)), truth((A, 0), (B, 0)), 2),
        found_in(told((B, 0, 0.7)), truth((B, 0)), 2),
    ]
    assert mean_average_precision(pictures) == pytest.approx(2 * (2 / 3) / 3)
    # and where the wrong one stands between them: 1, 1/2, 2/3
    between = found_in(told((A, 0, 0.9), (ELSEWHERE, 0, 0.8), (B, 0, 0.7)), truth((A, 0), (B, 0)), 2)
    assert mean_average_precision([between]) == pytest.approx((1 + 2 / 3) / 2)


def test_the_mean_is_over_classes_that_occur_and_another_class_at_the_right_place_is_wrong():
    one = found_in(told((A, 0, 0.9), (B, 0, 0.8)), truth((A, 0), (B, 1)), 3)
    assert mean_average_precision([one]) == pytest.approx((1 + 0) / 2)
    assert quality.of_rows("detection", told((A, 0, 0.9), (B, 0, 0.8))[None], truth((A, 0), (B, 1))[None]) == 0.5


def test_an_object_found_twice_counts_once():
    # each overlaps A by 19 of 30, and the other by 8, so that none suppresses the other
    upper, lower = [0.1, 0.1, 0.4, 0.29], [0.1, 0.21, 0.4, 0.4]
    twice = found_in(told((upper, 0, 0.9), (lower, 0, 0.8), (B, 0, 0.7)), truth((A, 0), (B, 0)), 2)
    assert twice.right.tolist() == [True, False, True]
    assert quality.of_rows("detection", told((upper, 0, 0.9), (lower, 0, 0.8))[None], truth((A, 0))[None]) == 1


def test_a_box_that_overlaps_by_less_than_a_half_is_wrong():
    half = [0.1, 0.1, 0.4, 0.24]  # 14 of 30 of A
    assert found_in(told((half, 0, 0.9)), truth((A, 0)), 2).right.tolist() == [False]


def test_a_picture_without_objects_is_right_where_nothing_is_answered():
    rows = np.stack([told((A, 0, 0.9)), told((A, 0, 0.1))])
    assert quality.of_rows("detection", rows, np.stack([truth(), truth()])).tolist() == [0, 1]
    assert np.isnan(mean_average_precision([found_in(rows[0], truth(), 2)]))


def test_intersection_over_union_is_of_each_class_and_its_mean_over_those_that_occur():
    answered, wanted = np.array([[0, 0, 1], [1, 1, 1]]), np.array([[0, 1, 1], [1, 1, 0]])
    outputs = np.eye(3, dtype=np.float32)[answered].transpose(2, 0, 1)
    assert counted(outputs, wanted).tolist() == [[1, 3], [3, 5], [0, 0]]
    assert mean_iou(counted(outputs, wanted)) == pytest.approx((1 / 3 + 3 / 5) / 2)
    assert quality.of_rows("segmentation", outputs[None], wanted[None]) == pytest.approx([(1 / 3 + 3 / 5) / 2])


def test_a_class_is_right_or_wrong():
    outputs = np.array([[0, 1], [2, 1]], np.float32)
    assert quality.of_rows("classification", outputs, np.array([1, 1])).tolist() == [1, 0]


def test_cells_around_an_objects_middle_answer_for_it_and_for_the_smaller_of_two():
    large, small = [0, 0.0, 0.0, 1.0, 1.0], [1, 0.6, 0.6, 0.8, 0.8]
    which, answers = assigned(torch.tensor([[large, small, [-1.0, 0, 0, 0, 0]]]), 5, 5)
    middle = [False, True, True, True, False]
    assert answers.view(5, 5).tolist() == [[False] * 5, *[middle] * 3, [False] * 5]
    assert which.view(5, 5)[1:4, 1:4].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    tiny = torch.tensor([[[0, 0.30, 0.30, 0.31, 0.31]]])
    assert assigned(tiny, 4, 4)[1].view(4, 4).nonzero().tolist() == [[1, 1]]
    assert not assigned(torch.tensor([[[-1.0, 0, 0, 1, 1]]]), 4, 4)[1].any()


def test_generalised_overlap_is_one_of_equals_and_falls_with_the_distance():
    one = torch.tensor([0.0, 0.0, 1.0, 1.0])
    others = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 0.5], [2, 0, 3, 1], [9, 0, 10, 1]])
    # hulls of 3 and 10, of which 1 and 8 belong to neither
    assert generalised_overlap(one.expand(4, 4), others).tolist() == pytest.approx([1, 0.5, -1 / 3, -0.8])


def test_the_loss_falls_where_boxes_and_classes_come_true_and_has_gradients():
    targets = torch.tensor([[[1, 0.0, 0.0, 1.0, 1.0]], [[-1, 0, 0, 0, 0]]], dtype=torch.float32)
    blank = torch.zeros(2, 4, 4, 6)
    blank[..., 4:] = -6
    right = blank.clone()
    right[0] = torch.tensor([0.0, 0, 1, 1, -6, 6])
    wrong = blank.clone()
    wrong[0] = torch.tensor([0.0, 0, 1, 1, 6, -6])
    assert detection(right, targets) < 0.01 < detection(blank, targets) < detection(wrong, targets)
    learnt = blank.clone().requires_grad_()
    detection(learnt, targets).backward()
    assert torch.isfinite(learnt.grad).all()
    assert learnt.grad[0, 1, 1].abs().sum() > 0


def test_a_picture_without_objects_or_with_others_beside_it_weighs_the_same():
    outputs = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[[1, 0.1, 0.1, 0.6, 0.9]], [[-1, 0, 0, 0, 0]]], dtype=torch.float32)
    alone = [detection(outputs[row : row + 1], targets[row : row + 1]) for row in range(2)]
    torch.testing.assert_close(detection(outputs, targets), sum(alone) / 2)
