"""The one definition of preprocessing: what it gives, and all that it refuses."""

import base64
import contextlib
import io
import tracemalloc

import ember_preprocessing
import numpy as np
import pytest
import torch
from ember_preprocessing import InvalidInput, Preprocessing, decode, stack
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def png(width=3, height=2, form="PNG"):
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((width, height)).save(file, form)
    return file.getvalue()


X = {"name": "x", "shape": [2], "dtype": "float32", "minimum": -5, "maximum": 5}
WHOLE = {"name": "n", "shape": [1], "dtype": "int64"}
BYTE = {"name": "b", "shape": [1], "dtype": "uint8"}
IMAGE = {"name": "image", "kind": "image"}


@pytest.mark.parametrize(
    ("spec", "value", "fact"),
    [
        (X, [[1, 2], [3]], "unequal length"),
        (X, "text", "numbers are required"),
        (X, ["1", "2"], "numbers are required"),
        (X, [None, 1], "numbers are required"),
        (X, None, "numbers are required"),
        (X, {"a": 1}, "numbers are required"),
        (X, [True, False], "numbers are required"),
        (X, [1, True], "numbers are required"),
        (X, [[1, 2], 3], "unequal length"),
        (X, np.array([True, False]), "numbers are required"),
        (X, np.array(["a", "b"]), "numbers are required"),
        (X, [1, np.array([2])], "unequal length"),
        (X, [], "numbers are required"),
        (X, [2**70, 1], "numbers are required"),
        (X, [1, 2, 3], r"shape is \[3\]; \[2\] is required"),
        (X, [[1, 2]], r"shape is \[1, 2\]"),
        (X, 1, r"shape is \[\]"),
        (X, [float("nan"), 1], "NaN or infinity"),
        (X, [float("-inf"), 1], "NaN or infinity"),
        (X, [-6, 0], "below the minimum -5"),
        (X, [6, 0], "above the maximum 5"),
        ({**X, "minimum": None, "maximum": None}, [1e300, 0], "does not fit float32"),
        (WHOLE, [1.5], "whole numbers"),
        (WHOLE, [2.0**63], "does not fit int64"),
        (WHOLE, [-(2.0**64)], "does not fit int64"),
        (WHOLE, [2**63], "does not fit int64"),
        ({**WHOLE, "shape": [2]}, [2**53 + 1, 1.0], r"2\*\*53 and more are among fractions"),
        ({**WHOLE, "shape": [2]}, [-1.0, -(2**60)], r"2\*\*53 and more are among fractions"),
        ({**WHOLE, "minimum": 0}, [-1], "below the minimum 0"),
        (BYTE, [256], "does not fit uint8"),
        (BYTE, [-1], "does not fit uint8"),
        (IMAGE, "%%%", "no base64"),
        (IMAGE, "é", "no base64"),
        (IMAGE, base64.b64encode(b"hello").decode(), "no image that can be decoded"),
        (IMAGE, png()[:50], "no image that can be decoded"),
        (IMAGE, png(form="GIF"), "no image that can be decoded"),
        (IMAGE, b"", "no image that can be decoded"),
        (IMAGE, [[1, 2]], "list; JPEG or PNG bytes"),
        (IMAGE, None, "NoneType; JPEG or PNG bytes"),
    ],
)
def test_what_cannot_be_used_is_refused_with_field_and_reason(spec, value, fact):
    with pytest.raises(InvalidInput, match=fact) as refused:
        decode(spec, value)
    assert refused.value.field == spec["name"]


def test_a_long_text_among_many_short_ones_takes_no_memory():
    # as an array of text, each of the 4,000 items would take four times the longest's million characters
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="numbers are required"):
        decode(X, ["a" * 1_000_000] + ["b"] * 4_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("value", [[1] * 1_000_000, [[1] * 1_000_000], [[]] * 1_000_000])
def test_far_more_values_than_a_shape_has_are_refused_before_they_are_looked_at(value):
    tracemalloc.start()
    with pytest.raises(InvalidInput, match=r"x: more than 2 values; shape \[2\] is required"):
        decode(X, value)
    assert Preprocessing({"inputs": [X]}).together([{"x": value}]) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_lists_nested_beyond_reason_are_refused():
    value = [1]
    for _ in range(900):
        value = [value]
    with pytest.raises(InvalidInput, match="numbers are required"):
        decode(X, value)


def test_base64_may_have_lines():
    lines = base64.encodebytes(png() + bytes(100)).decode()
    assert lines.count("\n") > 1
    assert np.array_equal(decode(IMAGE, lines), decode(IMAGE, png()))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(ember_preprocessing, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(InvalidInput, match="6 pixels; at most 5"):
        decode(IMAGE, png())


def test_missing_and_unknown_inputs_are_refused_by_name():
    both = Preprocessing({"inputs": [X, WHOLE]})
    with pytest.raises(InvalidInput, match="n: is required"):
        both({"x": [1, 2]})
    with pytest.raises(InvalidInput, match="y: is no input of this model; it takes n, x"):
        both({"x": [1, 2], "n": [1], "y": 3})


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        (1, 2),
        np.array([1, 2]),
        [1.0, 2.0],
        np.array([1, 2], np.uint8),
        [np.array(1), np.int8(2)],
        torch.tensor([1, 2]),
    ],
)
def test_numbers_of_any_type_become_the_inputs_dtype(value):
    array = decode(X, value)
    assert array.dtype == np.float32
    assert array.tolist() == [1, 2]


def test_a_flat_list_of_the_right_length_takes_the_inputs_shape():
    assert decode({"name": "x", "shape": [2, 3]}, [1, 2, 3, 4, 5, 6]).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 0])
def test_the_limits_of_an_integer_type_are_its_own(value):
    assert decode(WHOLE, [value]).tolist() == [value]


def test_an_image_becomes_rows_of_pixels():
    assert decode(IMAGE, png(3, 2)).shape == (2, 3, 3)
    assert decode(IMAGE, bytearray(png(3, 2))).dtype == np.uint8


def test_steps_apply_to_the_first_input_in_their_order():
    spec = {
        "inputs": [{"name": "x", "shape": [2, 2]}, WHOLE],
        "steps": [
            {"op": "scale", "by": 0.5},
            {"op": "normalise", "mean": [1, 2], "std": [2, 4]},
            {"op": "reshape", "shape": [1, 4]},
        ],
    }
    first, second = Preprocessing(spec)({"x": [[2, 4], [6, 8]], "n": [7]})
    assert first.tolist() == [[0, 0, 1, 0.5]]
    assert second.tolist() == [7]


def test_an_image_is_resized_and_turned_channels_first():
    spec = {"inputs": [IMAGE], "steps": [{"op": "resize", "size": [4, 5]}, {"op": "channels_first"}]}
    (array,) = Preprocessing(spec)({"image": png(30, 20)})
    assert array.shape == (3, 4, 5)
    assert array.flags.c_contiguous


def test_rows_stack_along_a_new_first_dimension():
    first, second = stack([(np.zeros(2), np.zeros((1, 3))), (np.ones(2), np.ones((1, 3)))])
    assert (first.shape, second.shape) == ((2, 2), (2, 1, 3))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
SPECS = st.one_of(
    st.just(IMAGE),
    st.builds(
        lambda shape, dtype, low, high: {"name": "x", "shape": shape, "dtype": dtype, "minimum": low, "maximum": high},
        st.lists(st.integers(1, 3), max_size=3),
        st.sampled_from(["float32", "int64", "uint8"]),
        st.none() | st.integers(-10, 0),
        st.none() | st.integers(0, 10),
    ),
)


@settings(max_examples=200, deadline=None)
@given(SPECS, JSON)
def test_decoding_raises_nothing_but_invalid_input(spec, value):
    try:
        array = decode(spec, value)
    except InvalidInput:
        return
    assert np.isfinite(array).all()


CORRUPTIONS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG"]), CORRUPTIONS, st.integers(0, 400))
def test_a_corrupted_image_raises_nothing_but_invalid_input(form, corruptions, cut):
    content = bytearray(png(8, 8, form))
    for position, value in corruptions:
        content[position % len(content)] = value
    with contextlib.suppress(InvalidInput):
        assert decode(IMAGE, bytes(content[: len(content) - cut % 50])).shape[2] == 3
