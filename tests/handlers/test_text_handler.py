"""Text in JSON or as it is; its tokenizer travels in the artifact."""

import json

import ember_text
import numpy as np
import pytest
from ember_preprocessing import InvalidInput, Preprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

BYTES = {"name": "text", "kind": "text", "length": 8, "tokenizer": "bytes"}
WORDS = {"name": "text", "kind": "text", "length": 4, "tokenizer": "words", "vocabulary": 100}


@pytest.fixture(scope="module")
def worker(make_worker, export_artifact, tmp_path_factory):
    from torch import nn

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(257, 4), nn.Linear(4, 2)

        def forward(self, ids):
            return self.out(self.table(ids).mean(1))

    folder = tmp_path_factory.mktemp("text") / "bag"
    artifact = export_artifact(folder, Bag(), {"inputs": [BYTES]}, {"text": "hello"}, ("good", "bad"))
    return make_worker(artifact, "text_handler.py")


def test_plain_text_and_json_are_answered_alike(worker):
    plain, encoded = worker.ask(b"hello", b'{"text": "hello"}')
    assert (plain.status, encoded.status) == (200, 200)
    assert plain.json["label"] == encoded.json["label"]
    assert plain.json["scores"] == pytest.approx(encoded.json["scores"], abs=1e-6)


AS_JSON, AS_TEXT = {"content-type": "application/json"}, {"Content-Type": "Text/Plain; charset=utf-8"}


def answer_of(worker, text):
    (answer,) = worker.ask(json.dumps({"text": text}).encode(), headers=AS_JSON)
    return answer.json


@pytest.mark.parametrize("headers", [AS_TEXT, {}])
@pytest.mark.parametrize("text", ["good", "[spoilers] a fine film", "[", '"good"', '"text": "good"}', "7"])
def test_bare_text_is_the_text_whatever_it_begins_with(worker, text, headers):
    for body in (text.encode(), text, "\ufeff".encode() + text.encode(), "\ufeff" + text):
        (answer,) = worker.ask(body, headers=headers)
        assert answer.json == answer_of(worker, text)


@pytest.mark.parametrize("text", ['{"text": "good"}', "{curly} film", "[1]"])
def test_what_calls_itself_text_is_the_text_even_where_it_could_be_json(worker, text):
    assert worker.ask(text.encode(), headers=AS_TEXT)[0].json == answer_of(worker, text)
    assert worker.ask(text, headers=AS_TEXT)[0].json == answer_of(worker, text)  # as TorchServe decodes it


@pytest.mark.parametrize("headers", [AS_JSON, {"Content-Type": "application/json; charset=utf-8"}, {}])
def test_a_byte_order_mark_before_json_is_dropped(worker, headers):
    (answer,) = worker.ask(b'\xef\xbb\xbf{"text": "good"}', headers=headers)
    assert answer.json == answer_of(worker, "good")


@pytest.mark.parametrize("body", [b'"text": "good"}', b"[spoilers]", b"hello", b'"hello"', "hello", b"[1]", 7, b"7"])
def test_what_calls_itself_json_and_is_no_object_is_refused(worker, body):
    (answer,) = worker.ask({"body": body}, headers=AS_JSON)
    assert (answer.status, answer.json["field"]) == (400, "body")


def test_text_comes_in_batches_by_open_inference_and_its_metadata_says_so(worker):
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["one", "two"]}
    answer, metadata = worker.ask(json.dumps({"inputs": [tensor]}).encode(), b"", headers={"x-ember-metadata": "1"})
    assert answer.json["outputs"][0]["shape"] == [2, 2]
    assert metadata.json["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [one["name"] for one in metadata.json["outputs"]] == ["scores", "label"]


def test_a_model_without_labels_answers_a_texts_embedding(make_worker, export_artifact, tmp_path_factory):
    import torch

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(257, 6)

        def forward(self, ids):
            return self.table(ids).mean(1)

    torch.manual_seed(0)
    net, folder = Mean(), tmp_path_factory.mktemp("embedding")
    worker = make_worker(export_artifact(folder / "a", net, {"inputs": [BYTES]}, {"text": "hello"}), "text_handler.py")
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["hello", "you"]}
    plain, encoded = worker.ask(b"hello", json.dumps({"inputs": [tensor]}).encode())
    expected = net(torch.from_numpy(ember_text.tokenize(BYTES, "hello"))[None])[0].tolist()
    assert plain.json["outputs"] == pytest.approx(expected, abs=1e-5)
    (outputs,) = encoded.json["outputs"]
    assert (outputs["name"], outputs["shape"]) == ("outputs", [2, 6])
    assert outputs["data"][:6] == pytest.approx(expected, abs=1e-5)


def test_a_bad_text_fails_only_its_own_row(worker):
    bodies = [b"\xff\xfe", b'{"text": 7}', b'{"text": "  "}', b'{"text": "\\ud800"}', b"", b'{"txt": "a"}', b"fine"]
    answers = worker.ask(*bodies)
    assert [one.status for one in answers] == [400] * 6 + [200]
    assert [one.json["field"] for one in answers[:6]] == ["body", "text", "text", "body", "body", "txt"]


def test_bytes_and_words_are_padded_and_cut():
    assert ember_text.tokenize(BYTES, "ab").tolist() == [98, 99, 0, 0, 0, 0, 0, 0]
    assert len(ember_text.tokenize(BYTES, "a" * 100)) == 8
    ids = ember_text.tokenize(WORDS, "Good, GOOD movie").tolist()
    assert ids[0] == ids[2] != 0
    assert all(0 < one < 100 for one in ids)


@pytest.mark.parametrize("blanks", [" ", "\n\t", "\u3000"])
def test_a_long_text_is_not_cut_to_its_white_space(blanks):
    far = blanks * 9000
    for text in (f"{far}good movie", f"good{far}movie", f"{far}good{far}movie{far}"):
        assert ember_text.tokenize(WORDS, text).tolist() == ember_text.tokenize(WORDS, "good movie").tolist()
    assert ember_text.tokenize(BYTES, " " * 9000 + "a").tolist() == [33] * 8  # whose tokens white space is as well


def test_many_specifications_one_after_the_other_keep_their_own_tokenizers():
    for number in range(40):
        spec = dict(WORDS if number % 2 else BYTES)
        assert ember_text.tokenize(spec, "ab cd")[0] == (ember_text.tokenize(WORDS, "ab")[0] if number % 2 else 98)


def test_a_tokenizer_file_is_run_by_its_library():
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"[UNK]": 1, "good": 2, "movie": 3}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    spec = {**WORDS, "tokenizer": json.loads(made.to_str())}
    assert ember_text.tokenize(spec, "good bad movie").tolist() == [2, 1, 3, 0]
    assert ember_text.tokenize(spec, " " * 9000 + "good movie").tolist() == [2, 3, 0, 0]
    with pytest.raises(UnicodeEncodeError):
        ember_text.tokenize(spec, "\ud800")


@settings(deadline=None, max_examples=60)
@given(st.one_of(st.text(), st.integers(), st.none(), st.lists(st.text()), st.characters(categories=["Cs"])))
def test_any_value_becomes_ids_or_is_refused(value):
    for spec in (BYTES, WORDS):
        try:
            (row,) = Preprocessing({"inputs": [spec]})({"text": value})
        except InvalidInput as error:
            assert error.field == "text"  # noqa: PT017 - either of two endings is right
        else:
            assert (row.dtype, row.shape) == (np.int64, (spec["length"],))
