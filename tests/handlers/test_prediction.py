"""Raw outputs to predictions, a batch at a time."""

import warnings

import numpy as np
import pytest
import torch
from ember_prediction import interpret


def test_a_classifiers_outputs_become_softmax_scores_and_the_likeliest_label():
    outputs = np.random.default_rng(0).normal(0, 20, (50, 7)).astype(np.float32)
    labels = list("abcdefg")
    expected = torch.from_numpy(outputs).softmax(1)
    for prediction, scores in zip(interpret(outputs, labels), expected, strict=True):
        assert prediction.scores == pytest.approx(scores.numpy(), abs=1e-6)
        assert prediction.label == labels[int(scores.argmax())]
        assert prediction.score == pytest.approx(float(scores.max()), abs=1e-6)


def test_large_outputs_do_not_overflow():
    (prediction,) = interpret(np.array([[1e38, -1e38]]), ["a", "b"])
    assert prediction.scores.tolist() == [1, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("labels", [(), ("a", "b")])
def test_a_row_that_is_not_finite_has_no_prediction_and_disturbs_no_other(bad, labels):
    outputs = np.array([[1, 2], [bad, 0], [3, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, none, last = interpret(outputs, labels)
    assert none is None
    alone = interpret(outputs[[0, 2]], labels)
    assert [first.as_json()["scores" if labels else "outputs"].tolist(), last.label] == [
        alone[0].scores.tolist(),
        alone[1].label,
    ]


def test_a_model_without_labels_keeps_its_outputs_in_their_shape():
    (prediction,) = interpret(np.ones((1, 2, 3)), ())
    assert prediction.as_json()["outputs"].shape == (2, 3)


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 1), (2,)])
def test_labels_of_another_number_than_the_outputs_are_refused(shape):
    with pytest.raises(ValueError, match="2 labels"):
        interpret(np.zeros(shape), ("a", "b"))
