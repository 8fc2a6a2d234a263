"""Boxes decoded and thinned out: held against the plainest code that says the same."""

import ember_boxes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def plain_overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if sum(areas) > shared else 0.0


def plain_suppression(boxes, classes, limit):
    kept = []
    for number, box in enumerate(boxes):
        if all(classes[one] != classes[number] or plain_overlap(boxes[one], box) <= limit for one in kept):
            kept.append(number)
    return kept


@st.composite
def many_boxes(draw):
    count = draw(st.integers(0, 12))
    whole = st.integers(0, 10)
    corners = [sorted(draw(st.tuples(whole, whole))) + sorted(draw(st.tuples(whole, whole))) for _ in range(count)]
    boxes = np.array([[left, top, right, bottom] for left, right, top, bottom in corners], float).reshape(-1, 4)
    return boxes / 10, np.array(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)), int)


@settings(max_examples=300)
@given(many_boxes(), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_suppression_keeps_what_the_plain_loop_keeps(drawn, limit):
    boxes, classes = drawn
    assert ember_boxes.suppress(boxes, classes, limit).tolist() == plain_suppression(boxes, classes, limit)


def test_a_box_that_was_suppressed_suppresses_no_other():
    # b overlaps both of its neighbours by 2/3, which overlap each other by less than a half
    boxes = np.array([[0.0, 0, 1, 1], [0.2, 0, 1.2, 1], [0.4, 0, 1.4, 1]])
    assert ember_boxes.suppress(boxes, np.zeros(3), 0.5).tolist() == [0, 2]
    assert ember_boxes.suppress(boxes, np.array([0, 1, 0]), 0.4).tolist() == [0, 1]


def candidates(*rows):
    """Boxes with a logit for each of two classes."""
    return np.array([[*box, *logits] for box, *logits in rows], np.float32)


def test_a_candidate_stands_for_its_likeliest_class_with_the_sigmoid_as_its_score():
    outputs = candidates(([0.1, 0.2, 0.3, 0.4], -1, 2), ([0.5, 0.5, 0.9, 0.9], 3, -1)).reshape(1, 2, 6)
    found = ember_boxes.detect(outputs, least=0.25)
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-3.0, -2.0])), rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [[0.5, 0.5, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4]])


def test_boxes_end_where_the_picture_does_and_empty_ones_are_none():
    inside, outside, turned = [-0.5, 0.5, 0.5, 7], [1.2, 0, 1.4, 1], [0.4, 0, 0.2, 1]
    found = ember_boxes.detect(candidates((inside, 5, 0), (outside, 5, 0), (turned, 5, 0)), least=0.25)
    assert found.boxes.tolist() == [[0, 0.5, 0.5, 1]]
    assert ember_boxes.pixels(found, (200, 100)).tolist() == [[0, 100, 50, 200]]


@pytest.mark.parametrize(("least", "count"), [(0.0, 3), (0.3, 2), (0.6, 1), (1.0, 0)])
def test_less_sure_candidates_are_left_out(least, count):
    boxes = [[0, 0, 0.1, 0.1], [0.2, 0, 0.3, 0.1], [0.4, 0, 0.5, 0.1]]
    outputs = candidates(*((box, logit, -9) for box, logit in zip(boxes, (-2, 0, 2), strict=True)))
    assert len(ember_boxes.detect(outputs, least).scores) == count


def test_no_more_are_told_than_the_surest_so_many():
    corners = np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) / 20
    logits = np.linspace(0, 4, 400)[:, None]
    outputs = np.concatenate([corners, corners + 0.04, logits, logits - 9], axis=1)
    found = ember_boxes.detect(outputs, 0.25)
    assert len(found.scores) == ember_boxes.MOST
    np.testing.assert_allclose(found.scores, np.sort(1 / (1 + np.exp(-logits[:, 0])))[::-1][: ember_boxes.MOST], 1e-6)
