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
