"""Whatever a body holds, it is understood or refused with a field."""

import json

import numpy as np
import orjson
import pytest
from ember_prediction import Prediction
from ember_preprocessing import InvalidInput
from ember_protocol import Request, parse, render, render_error
from hypothesis import given, settings
from hypothesis import strategies as st

ANY_CHARACTER = st.characters(exclude_categories=())  # halves of surrogate pairs included
KEYS = st.sampled_from(["inputs", "instances", "outputs", "id", "x", "parameters"]) | st.text(
    st.characters(exclude_categories=()), max_size=3
)
TENSOR_KEYS = st.sampled_from(["name", "shape", "datatype", "data"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["FP32", "INT64", "BYTES", "x"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | TENSOR_KEYS, inner, max_size=4),
    max_leaves=15,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | SCALARS,
        "shape": st.lists(st.integers(-1, 3) | SCALARS, max_size=3) | SCALARS,
        "datatype": st.sampled_from(["FP32", "INT8", "BYTES"]) | SCALARS,
        "data": st.lists(SCALARS, max_size=6) | VALUES,
    },
)


def understood_or_refused(body):
    refused = None
    try:
        request = parse(body)
    except InvalidInput as error:
        refused = error
    if refused is None:
        assert request.instances
        assert all(isinstance(name, str) for instance in request.instances for name in instance)
    else:
        assert set(orjson.loads(render_error(str(refused), refused.field))) == {"error", "field"}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | VALUES)
def test_any_body_is_understood_or_refused(body):
    understood_or_refused(body)


@settings(max_examples=150, deadline=None)
@given(st.lists(TENSORS, max_size=3), st.dictionaries(KEYS, VALUES, max_size=2))
def test_any_inference_request_is_understood_or_refused(tensors, more):
    understood_or_refused({**more, "inputs": tensors})


def test_answers_are_compact_bytes():
    predictions = [Prediction(np.array([0.25, 0.75], np.float32), "b", 0.75)]
    assert render(Request("single", [{}]), predictions, "m", "1") == b'{"label":"b","score":0.75,"scores":[0.25,0.75]}'
    assert render(Request("instances", [{}]), predictions, "m", "1").startswith(b'{"predictions":[{"label"')


def test_half_a_surrogate_pair_which_pythons_json_lets_through_can_be_named():
    name = json.loads('"\\ud800"')
    assert orjson.loads(render_error(f"{name}: is no input", name))["field"] == "?"


def test_an_error_without_a_field_has_none():
    assert render_error("no") == b'{"error":"no"}'


def test_open_inference_is_known_by_its_list_of_inputs():
    call = {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]}]}
    request = parse(orjson.dumps(call))
    assert (request.style, [row["x"].tolist() for row in request.instances]) == ("oip", [[1], [2]])
    assert parse({"inputs": {"a": 1}}).style == "single", "a model may have an input of that name in plain bodies"


@pytest.mark.parametrize("datatype", ["BOOL", "FP8", "fp32", None])
def test_a_datatype_that_is_not_taken_is_refused_with_those_that_are(datatype):
    call = {"inputs": [{"name": "x", "shape": [1], "datatype": datatype, "data": [1]}]}
    with pytest.raises(InvalidInput, match="FP32"):
        parse(call)
