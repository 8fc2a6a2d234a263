"""Answers compared with what the artifact says."""

import math

import pytest

from emberline.artifact import Probe
from emberline.serve import probe

RAW = Probe(instance={}, expected=(1.0, -2.0), tolerance=0.01)


def test_raw_outputs_are_compared_as_they_are():
    assert probe.compare({"outputs": [1.0, -2.0]}, RAW) == ("matched", "")
    assert probe.compare({"outputs": [[1.0], [-2.009]]}, RAW) == ("matched", "")


def test_scores_are_compared_with_the_softmax_of_the_raw_outputs():
    total = math.exp(1.0) + math.exp(-2.0)
    scores = [math.exp(1.0) / total, math.exp(-2.0) / total]
    assert probe.compare({"label": "a", "scores": scores}, RAW) == ("matched", "")
    assert probe.compare({"label": "a", "scores": list(RAW.expected)}, RAW)[0] == "mismatched"


def test_difference_over_the_tolerance_is_told_with_both_sides():
    outcome, detail = probe.compare({"outputs": [1.0, -1.5]}, RAW)
    assert outcome == "mismatched"
    assert detail == "got [1, -1.5], expected [1, -2]: the largest difference 0.5 is over 0.01"


@pytest.mark.parametrize(
    "body",
    [
        {"outputs": [math.nan, -2.0]},
        {"outputs": ["1", "-2"]},
        {"outputs": [1.0]},
        {"label": "a"},
        {"outputs": 1.0},
        [1.0, -2.0],
        None,
    ],
)
def test_whatever_else_comes_back_is_no_match(body):
    assert probe.compare(body, RAW)[0] == "mismatched"


BOXES = [
    {"box": [10, 10, 30, 30], "label": "cat", "score": 0.9},
    {"box": [50, 50, 90, 90], "label": "dog", "score": 0.6},
]
FINDS = Probe(instance={}, expected=(0.0,), tolerance=0.01, answer={"detections": BOXES})
SHARES = Probe(instance={}, expected=(0.0,), tolerance=0.01, answer={"shares": {"ground": 0.75, "cat": 0.25}})


def test_each_expected_object_is_found_by_class_and_place_whatever_else_is():
    moved = [{**one, "box": [side + 2 for side in one["box"]], "score": 0.4} for one in reversed(BOXES)]
    extra = {"box": [0, 0, 5, 5], "label": "cat", "score": 0.3}
    assert probe.compare({"detections": [*moved, extra]}, FINDS) == ("matched", "")
    assert probe.compare({"detections": []}, FINDS.model_copy(update={"answer": {"detections": []}}))[0] == "matched"


@pytest.mark.parametrize(
    "detections",
    [
        BOXES[:1],
        [BOXES[0], {**BOXES[1], "label": "cat"}],
        [BOXES[0], {**BOXES[1], "box": [70, 50, 110, 90]}],
        [BOXES[0], {**BOXES[1], "box": ["a"]}],
        [BOXES[0], {"label": "dog"}],
        None,
        "x",
    ],
)
def test_an_object_that_is_missing_elsewhere_or_of_another_class_is_a_mismatch(detections):
    assert probe.compare({"detections": detections}, FINDS)[0] == "mismatched"
    assert probe.compare({"outputs": [0.0]}, FINDS)[0] == "mismatched"


@pytest.mark.parametrize(
    ("shares", "outcome"),
    [
        ({"ground": 0.72, "cat": 0.28}, "matched"),
        ({"ground": 0.6, "cat": 0.4}, "mismatched"),
        ({"ground": 0.75}, "mismatched"),
        ({"ground": math.nan, "cat": math.nan}, "mismatched"),
        ({"ground": "x", "cat": 1}, "mismatched"),
        ([0.75, 0.25], "mismatched"),
    ],
)
def test_shares_are_about_what_is_expected(shares, outcome):
    assert probe.compare({"mask": "", "shares": shares}, SHARES)[0] == outcome


OWN = Probe(instance={}, expected=(0.0,), tolerance=0.01, answer={"digit": "7", "sure": True, "of": [0.5, 100, None]})


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"digit": "7", "sure": True, "of": [0.509, 104, None]}, "matched"),
        ({"digit": "7", "sure": True, "of": [0.55, 100, None]}, "mismatched"),
        ({"digit": "7", "sure": True, "of": [0.5, math.nan, None]}, "mismatched"),
        ({"digit": "7", "sure": True, "of": [0.5, 100]}, "mismatched"),
        ({"digit": "7", "sure": 1.0, "of": [0.5, 100, None]}, "mismatched"),
        ({"digit": "7", "sure": True, "of": [True, 100, None]}, "mismatched"),
        ({"digit": "1", "sure": True, "of": [0.5, 100, None]}, "mismatched"),
        ({"digit": "7", "sure": True, "of": [0.5, 100, None], "more": 1}, "mismatched"),
        ([], "mismatched"),
    ],
)
def test_a_users_handler_answers_with_the_same_words_and_about_the_same_numbers(body, outcome):
    assert probe.compare(body, OWN)[0] == outcome


def test_of_a_handler_that_answers_otherwise_each_time_any_answer_will_do():
    anything = OWN.model_copy(update={"answer": {}})
    assert probe.compare("whatever", anything) == ("matched", "")
