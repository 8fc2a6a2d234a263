"""The demo's data."""

import numpy as np

from emberline.data.digits import digits, read_digits


def test_they_are_what_scikit_learn_loads():
    from sklearn.datasets import load_digits

    images, labels = read_digits()
    assert (images == load_digits().images).all()
    assert (labels == load_digits().target).all()


def test_splits_are_disjoint_stratified_and_equal_each_time():
    one, again = digits(), digits()
    parts = [one.train, one.validation, one.test]
    assert sum(len(part) for part in parts) == 1797
    pixels = [{row.tobytes() for row in part.inputs["pixels"]} for part in parts]
    assert len(set.union(*pixels)) == sum(len(part) for part in pixels)
    for part in parts:
        shares = np.bincount(part.labels, minlength=10) / len(part)
        assert shares.min() > 0.08
    assert (one.train.inputs["pixels"] == again.train.inputs["pixels"]).all()


def test_a_row_is_what_a_client_would_send():
    instance, label = digits().validation[3]
    assert list(instance) == ["pixels"]
    assert instance["pixels"].shape == (8, 8)
    assert 0 <= label < 10
