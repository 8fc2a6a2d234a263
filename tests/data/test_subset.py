"""Parts of rows: held out, or sampled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberline.data import load, order_of, rows_from_arrays
from emberline.data.subset import Subset, divide, sample
from emberline.recipe import Data


def rows(number: int):
    return rows_from_arrays("x", np.arange(number, dtype=np.float32)[:, None], np.arange(number) % 3)


@given(st.integers(2, 300), st.floats(0.01, 0.99))
def test_what_is_held_out_and_what_is_kept_are_all_rows_once(number, fraction):
    kept, held = divide(number, fraction)
    assert sorted([*kept, *held]) == list(range(number))
    assert len(held) == max(1, round(fraction * number))


@given(st.integers(1, 300), st.floats(0.01, 1), st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_over_a_sample_has_each_of_its_rows_once_in_the_order_of_all(number, fraction, seed, epoch):
    part = sample(rows(number), fraction)
    order = part.order(seed, epoch)
    assert sorted(order) == list(range(len(part)))
    whole = [int(part[index][0]["x"][0]) for index in order]
    assert whole == [index for index in order_of(rows(number), seed, epoch) if index in set(whole)]


def test_a_sample_is_always_the_same_and_holds_the_smaller_ones():
    tenth = sample(rows(1000), 0.1)
    assert len(tenth) == 100
    assert tenth.labels.tolist() == sample(rows(1000), 0.1).labels.tolist()
    ids = [{int(part[index][0]["x"][0]) for index in range(len(part))} for part in (tenth, sample(rows(1000), 0.3))]
    assert ids[0] < ids[1]


def test_rows_that_do_not_tell_their_labels_have_none_in_part():
    class Plain:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"x": index}, 0

    assert not hasattr(Subset(Plain(), np.array([1])), "labels")
    assert Subset(Plain(), np.array([1])).place(0) == ""


@pytest.mark.parametrize("given", [None, 0.1])
def test_a_recipe_samples_the_training_rows_alone(given):
    splits = load(Data(source="emberline.data.digits:digits", sample=given), None)
    whole = load(Data(source="emberline.data.digits:digits"), None)
    assert len(splits.train) == (len(whole.train) if given is None else round(0.1 * len(whole.train)))
    assert len(splits.validation) == len(whole.validation)
