"""Each request of a batch is answered on its own account."""

import json
import logging

import numpy as np
import pytest
import torch
from ember_packages import NoUsablePackage
from torch import nn

GOOD = b'{"x": [1, 2, 3, 4]}'


def oip(data=(1, 2, 3, 4), shape=(1, 4), name="x", datatype="FP32", **more):
    tensor = {"name": name, "shape": list(shape), "datatype": datatype, "data": list(data)}
    return json.dumps({"inputs": [tensor], **more}).encode()


def test_one_instance_is_answered_with_label_score_and_scores(tensor_worker):
    (answer,) = tensor_worker.ask(GOOD)
    assert (answer.status, answer.content_type) == (200, "application/json")
    scores = answer.json["scores"]
    assert sum(scores) == pytest.approx(1, abs=1e-6)
    assert answer.json["label"] == "abc"[int(np.argmax(scores))]
    assert answer.json["score"] == pytest.approx(max(scores))


def test_scores_are_the_softmax_of_what_the_model_answers(tensor_worker, tiny_runs):
    probe = json.loads((tiny_runs / "tiny" / "artifacts" / "fp32" / "probe.json").read_text())
    (answer,) = tensor_worker.ask(json.dumps(probe["instance"]).encode())
    assert answer.json["scores"] == pytest.approx(torch.tensor(probe["expected"]).softmax(0).tolist(), abs=1e-5)


def test_a_list_of_instances_is_answered_in_its_order(tensor_worker):
    rows = [{"x": [k, -k, k, 0]} for k in range(7)]
    (together,) = tensor_worker.ask(json.dumps({"instances": rows}).encode())
    alone = [tensor_worker.ask(json.dumps(row).encode())[0].json for row in rows]
    assert [one["label"] for one in together.json["predictions"]] == [one["label"] for one in alone]
    for one, other in zip(together.json["predictions"], alone, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-6)


def test_more_rows_than_the_package_takes_at_once_are_all_answered(tensor_worker):
    rows = [{"x": [k % 10, 0, 0, 0]} for k in range(150)]
    (answer,) = tensor_worker.ask(json.dumps({"instances": rows}).encode())
    predictions = answer.json["predictions"]
    assert len(predictions) == 150
    assert predictions[3]["scores"] == pytest.approx(predictions[143]["scores"], abs=1e-6)


@pytest.mark.parametrize("kind", [bytes, bytearray, json.loads])
def test_a_body_means_the_same_however_torchserve_hands_it_over(tensor_worker, kind):
    (answer,) = tensor_worker.ask({"body": kind(GOOD)})
    assert answer.body == tensor_worker.ask(GOOD)[0].body


def test_a_form_may_carry_the_body_or_a_field_for_each_input(tensor_worker):
    body, fields = tensor_worker.ask({"data": GOOD}, {"x": b"[1, 2, 3, 4]"})
    assert body.json == fields.json
    assert body.status == 200


def test_open_inference_is_answered_with_tensors(tensor_worker):
    (answer,) = tensor_worker.ask(oip([1, 2, 3, 4, 0, 0, 0, 1], (2, 4), id="seven"))
    plain = [tensor_worker.ask(json.dumps({"x": x}).encode())[0].json for x in ([1, 2, 3, 4], [0, 0, 0, 1])]
    assert {key: answer.json[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "tiny",
        "model_version": "1.0",
        "id": "seven",
    }
    scores, label = answer.json["outputs"]
    assert (scores["name"], scores["shape"], scores["datatype"]) == ("scores", [2, 3], "FP32")
    assert scores["data"] == pytest.approx(plain[0]["scores"] + plain[1]["scores"], abs=1e-6)
    assert label == {"name": "label", "shape": [2], "datatype": "BYTES", "data": [plain[0]["label"], plain[1]["label"]]}


def test_open_inference_answers_the_outputs_asked_for(tensor_worker):
    (answer,) = tensor_worker.ask(oip(outputs=[{"name": "label"}]))
    assert [output["name"] for output in answer.json["outputs"]] == ["label"]


BAD = {
    "empty body": (b"", "body"),
    "no body": ({}, "body"),
    "broken json": (b'{"x": [1, 2', "body"),
    "not utf-8": (b'{"x": "\xff"}', "body"),
    "array": (b"[1, 2, 3, 4]", "body"),
    "number": (b"7", "body"),
    "null": (b"null", "body"),
    "empty object": (b"{}", "body"),
    "deep nesting": (b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "body"),
    "nan": (b'{"x": [NaN, 1, 2, 3]}', "body"),
    "nan already decoded": ({"body": {"x": [float("nan"), 1, 2, 3]}}, "x"),
    "infinity": (b'{"x": [1e999, 1, 2, 3]}', "body"),
    "beyond float32": ({"body": {"x": [1e300, 1, 2, 3]}}, "x"),
    "above the maximum": (b'{"x": [11, 0, 0, 0]}', "x"),
    "below the minimum": (b'{"x": [-11, 0, 0, 0]}', "x"),
    "too short": (b'{"x": [1, 2, 3]}', "x"),
    "too many dimensions": (b'{"x": [[1, 2, 3, 4]]}', "x"),
    "ragged": (b'{"x": [[1, 2], [3]]}', "x"),
    "text": (b'{"x": "abcd"}', "x"),
    "numbers as text": (b'{"x": ["1", "2", "3", "4"]}', "x"),
    "null value": (b'{"x": [1, 2, 3, null]}', "x"),
    "object": (b'{"x": {"a": 1}}', "x"),
    "missing input": (b'{"instances": [{}]}', "instances[0].x"),
    "unknown input": (b'{"x": [1, 2, 3, 4], "y": 1}', "y"),
    "no instances": (b'{"instances": []}', "instances"),
    "instances no list": (b'{"instances": {"x": 1}}', "instances"),
    "instance no object": (b'{"instances": [{"x": [1, 2, 3, 4]}, 7]}', "instances[1]"),
    "second instance bad": (b'{"instances": [{"x": [1, 2, 3, 4]}, {"x": [1]}]}', "instances[1].x"),
    "input beside instances": (b'{"instances": [{"x": [1, 2, 3, 4]}], "x": 1}', "x"),
    "field beside the body": ({"body": GOOD, "threshold": b"1"}, "threshold"),
    "unknown form field": ({"y": b"1"}, "y"),
    "too many rows": (b'{"instances": [' + b",".join([GOOD] * 5000) + b"]}", "instances"),
    "oip no inputs": (b'{"inputs": []}', "inputs"),
    "oip input no object": (b'{"inputs": [1]}', "inputs[0]"),
    "oip no name": (b'{"inputs": [{"shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}', "inputs[0].name"),
    "oip unknown input": (oip(name="y"), "y"),
    "oip given twice": (b'{"inputs": [' + b",".join([oip()[len(b'{"inputs": [') : -2]] * 2) + b"]}", "x"),
    "oip no shape": (oip(shape=()), "x.shape"),
    "oip negative shape": (oip(shape=(-1, 4)), "x.shape"),
    "oip zero rows": (oip((), (0, 4)), "x.shape"),
    "oip huge shape": (oip(shape=(2, 10**12)), "x.shape"),
    "oip shape beyond any index": (oip(shape=(1, 2**63 - 1)), "x.shape"),
    "oip shape of more dimensions than an array has": (oip([1], (1,) * 65), "x.shape"),
    "oip shape of far more values than data": (oip(shape=(2, 10**10)), "x.data"),
    "oip shape of text": (oip(shape=("1", "4")), "x.shape"),
    "oip data too short": (oip([1, 2, 3]), "x.data"),
    "oip data missing": (b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32"}]}', "x.data"),
    "oip unknown datatype": (oip(datatype="FP8"), "x.datatype"),
    "oip datatype no string": (oip(datatype=[1]), "x.datatype"),
    "oip text in numbers": (oip(["a", "b", "c", "d"]), "x.data"),
    "oip bytes for numbers": (oip(["a"], (1,), datatype="BYTES"), "x"),
    "oip bytes of another count": (oip(["a", "b"], (1,), datatype="BYTES"), "x.data"),
    "oip ragged": (oip([[1, 2], [3]]), "x.data"),
    "oip fraction in integers": (oip([1.5, 2, 3, 4], datatype="INT32"), "x.data"),
    "oip wrong row shape": (oip([1, 2, 3], (1, 3)), "x"),
    "oip out of range": (oip([1, 2, 3, 99]), "x"),
    "oip id no string": (oip(id=7), "id"),
    "oip id no text": ({"body": json.loads(oip(id="\ud800"))}, "id"),
    "a name that is no text": ({"body": {"\ud800": 1}}, "?"),
    "oip unknown key": (oip(extra=1), "extra"),
    "oip unknown output": (oip(outputs=[{"name": "boxes"}]), "outputs"),
    "oip outputs no list": (oip(outputs="label"), "outputs"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_refused_by_field_and_its_neighbours_are_answered(tensor_worker, kind):
    request, field = BAD[kind]
    expected = tensor_worker.ask(GOOD)[0].json
    before, bad, after = tensor_worker.ask(GOOD, request, GOOD)
    assert (bad.status, bad.json["field"], bad.content_type) == (400, field, "application/json"), bad.body
    assert bad.json["error"].startswith(f"{field}: ")
    assert b"Traceback" not in bad.body
    for good in (before, after):
        assert good.status == 200
        assert good.json["scores"] == pytest.approx(expected["scores"], abs=1e-6)


def test_all_kinds_of_bad_rows_in_one_batch_leave_the_good_ones_alone(tensor_worker):
    answers = tensor_worker.ask(*(request for bad, _ in BAD.values() for request in (bad, GOOD)))
    assert [answer.status for answer in answers] == [400, 200] * len(BAD)


class Fragile(nn.Module):
    """Fails on the first number above 3, answers infinity where the second is 0."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 3)

    def forward(self, x):
        return self.table(x[:, 0].long()) + x[:, 1:2].log()


@pytest.fixture(scope="module")
def fragile(make_worker, export_artifact, tmp_path_factory):
    inputs = {"inputs": [{"name": "x", "shape": [2]}]}
    return make_worker(export_artifact(tmp_path_factory.mktemp("fragile") / "fp32", Fragile(), inputs, {"x": [1, 1]}))


def test_a_row_the_model_fails_on_gets_a_500_and_its_neighbours_their_answers(fragile, caplog):
    with caplog.at_level(logging.ERROR):
        before, failed, after = fragile.ask(b'{"x": [1, 2]}', b'{"x": [9, 1]}', b'{"x": [3, 1]}')
    assert (before.status, failed.status, after.status) == (200, 500, 200)
    assert set(failed.json) == {"error"}
    assert b"Traceback" not in failed.body
    assert b"IndexError" not in failed.body
    assert "Traceback" in caplog.text, "the reason belongs in the worker's log"
    assert after.json["outputs"] == pytest.approx(fragile.ask(b'{"x": [3, 1]}')[0].json["outputs"])


def test_a_users_handler_that_fails_on_one_request_answers_the_others(
    make_worker, tiny_runs, tmp_path, monkeypatch, caplog
):
    (tmp_path / "clumsy_handler.py").write_text(
        "from ember_handler import EmberHandler\n\n"
        "class Clumsy(EmberHandler):\n"
        "    def body(self, body):\n"
        "        return super().body(body[body.index(b'{') :])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    worker = make_worker(tiny_runs / "tiny" / "artifacts" / "fp32", "clumsy_handler.py")
    before, failed, after = worker.ask(GOOD, b"no brace", GOOD)
    assert (before.status, failed.status, after.status) == (200, 500, 200)
    assert set(failed.json) == {"error"}
    assert "ValueError" in caplog.text


def test_an_answer_that_cannot_be_written_fails_its_own_request_alone(
    make_worker, tiny_runs, tmp_path, monkeypatch, caplog
):
    (tmp_path / "mute_handler.py").write_text(
        "import orjson\n"
        "from ember_handler import EmberHandler\n\n"
        "class Mute(EmberHandler):\n"
        "    def render(self, request, predictions, model, version):\n"
        "        return orjson.dumps({1} if request.call else 'said')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    worker = make_worker(tiny_runs / "tiny" / "artifacts" / "fp32", "mute_handler.py")
    before, failed, after = worker.ask(GOOD, oip(), GOOD)
    assert (before.json, failed.status, after.json) == ("said", 500, "said")
    assert set(failed.json) == {"error"}
    assert "TypeError" in caplog.text, "the reason belongs in the worker's log"


def test_outputs_that_are_not_finite_are_the_servers_fault(fragile):
    failed, good = fragile.ask(b'{"x": [1, 0]}', b'{"x": [1, 1]}')
    assert (failed.status, good.status) == (500, 200)
    assert "not finite" in failed.json["error"]


def test_a_model_without_labels_is_answered_with_its_outputs(fragile):
    plain, open_inference = fragile.ask(b'{"x": [1, 1]}', oip([1, 1], (1, 2)))
    assert set(plain.json) == {"outputs"}
    (tensor,) = open_inference.json["outputs"]
    assert tensor["name"] == "outputs"
    assert tensor["data"] == pytest.approx(plain.json["outputs"])


def test_a_package_that_answers_its_probe_wrong_never_becomes_ready(make_worker, export_artifact, tmp_path):
    artifact = export_artifact(
        tmp_path / "fp32", nn.Linear(2, 2), {"inputs": [{"name": "x", "shape": [2]}]}, {"x": [1, 1]}
    )
    probe = json.loads((artifact / "probe.json").read_text())
    (artifact / "probe.json").write_text(json.dumps({**probe, "expected": [9.0, 9.0]}))
    with pytest.raises(NoUsablePackage):
        make_worker(artifact)


def test_too_few_labels_keep_a_worker_from_becoming_ready(make_worker, export_artifact, tmp_path):
    inputs = {"inputs": [{"name": "x", "shape": [2]}]}
    artifact = export_artifact(tmp_path / "fp32", nn.Linear(2, 3), inputs, {"x": [1, 1]}, labels=("yes", "no"))
    with pytest.raises(ValueError, match="2 labels"):
        make_worker(artifact)


def test_a_gpu_takes_no_package_that_was_compiled_for_the_cpu(monkeypatch, tmp_path):
    import ember_packages

    (tmp_path / "a.pt2").touch()
    package = {"file": "a.pt2", "backend": "onnx", "max_batch": 8}
    assert ember_packages.unfit(tmp_path, package) is None
    monkeypatch.setenv("EMBERLINE_DEVICE", "cuda:1")
    assert ember_packages.unfit(tmp_path, package) == "is made for the CPU; this worker's model is on cuda:1"
    assert ember_packages.unfit(tmp_path, {**package, "backend": "exported"}) is None


def test_a_gpu_that_was_asked_for_and_is_not_there_fails_the_load(monkeypatch):
    import ember_worker

    monkeypatch.setenv("EMBERLINE_DEVICES", "0,1")
    with pytest.raises(RuntimeError, match="finds no GPU"):
        ember_worker.settle(None)


def test_a_program_is_moved_to_its_device(monkeypatch, tmp_path):
    import ember_backends
    import torch

    program = torch.export.export(torch.nn.Linear(2, 1), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "a.pt2")
    monkeypatch.setenv("EMBERLINE_DEVICE", "meta")  # a device without memory: what is on it cannot be read back
    run = ember_backends.open_package("exported", tmp_path / "a.pt2", print)
    with pytest.raises(NotImplementedError, match="meta"):
        run([np.zeros((1, 2), np.float32)])
