"""Detection as clients meet it: a picture in, boxes in its own pixels out."""

import base64
import io
import json

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from emberline import signing
from emberline.archive.store import write_archive
from emberline.archivefile import read_archive
from emberline.errors import EmberlineError
from emberline.openapi import document
from emberline.recipe import Archive

SPEC = {
    "inputs": [{"name": "image", "kind": "image"}],
    "steps": [{"op": "resize", "size": [4, 4]}, {"op": "scale", "by": 1 / 255}, {"op": "channels_first"}],
}
# left, top, right, bottom, then what is added to the logits of a cat and a dog, whose sum is 4 in a white picture
CANDIDATES = [[0.5, 0.25, 1, 0.75, -2, -9], [0.5, 0.25, 1, 0.8, -2.5, -9], [0, 0, 0.5, 0.5, -9, -3]]


def picture(brightness=255, size=(8, 4), form="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size, (brightness,) * 3).save(file, form)
    return file.getvalue()


def finder():
    """Finds a cat, the same cat less surely, and a dog, in proportion to how bright a picture is."""
    import torch
    from torch import nn

    class Finder(nn.Module):
        def forward(self, x):
            fixed = torch.tensor(CANDIDATES)
            light = 4 * x.mean((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 3, 1, 2)
            still = torch.zeros_like(light).repeat(1, 1, 1, 2)
            return fixed.view(1, 3, 1, 6) + torch.cat([still, light], dim=3)

    return Finder()


@pytest.fixture(scope="module")
def artifact(export_artifact, tmp_path_factory):
    folder, probe = tmp_path_factory.mktemp("detection") / "fp32", {"image": base64.b64encode(picture()).decode()}
    return export_artifact(folder, finder(), SPEC, probe, ("cat", "dog"), task="detection")


@pytest.fixture(scope="module")
def worker(make_worker, artifact):
    return make_worker(artifact, "detection_handler.py")


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def test_boxes_are_in_pixels_of_the_picture_that_was_sent_and_each_object_is_told_once(worker):
    small, large = worker.ask(picture(), picture(size=(80, 100), form="JPEG"))
    assert [one["label"] for one in small.json["detections"]] == ["cat", "dog"]
    assert [one["box"] for one in small.json["detections"]] == [[4, 1, 8, 3], [0, 0, 4, 2]]
    assert [one["box"] for one in large.json["detections"]] == [[40, 25, 80, 75], [0, 0, 40, 50]]
    assert [one["score"] for one in small.json["detections"]] == pytest.approx([sigmoid(2), sigmoid(1)], abs=1e-5)


def test_a_picture_without_objects_is_answered_with_none(worker):
    (answer,) = worker.ask(picture(0))
    assert (answer.status, answer.json) == (200, {"detections": []})


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (picture()[:40], "image"),
        (b"\x89PNG", "image"),
        (b"", "body"),
        (b'{"image": "%%%"}', "image"),
        (b'{"image": null}', "image"),
        (b'{"instances": [{"image": 3}]}', "instances[0].image"),
    ],
)
def test_a_bad_image_fails_only_its_own_row(worker, bad, field):
    before, refused, after = worker.ask(picture(), bad, picture())
    assert (before.status, refused.status, after.status) == (200, 400, 200), refused.body
    assert refused.json["field"] == field
    assert before.json == after.json == worker.ask(picture())[0].json


def test_several_pictures_in_one_request_are_each_answered(worker):
    texts = [base64.b64encode(picture(brightness)).decode() for brightness in (255, 0)]
    (answer,) = worker.ask(json.dumps({"instances": [{"image": text} for text in texts]}).encode())
    assert [len(one["detections"]) for one in answer.json["predictions"]] == [2, 0]


def test_open_inference_tells_how_many_of_its_places_count(worker):
    texts = [base64.b64encode(picture(brightness)).decode() for brightness in (0, 255)]
    call = {"id": "7", "inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": texts}]}
    all_, some = worker.ask(
        json.dumps(call).encode(), json.dumps({**call, "outputs": [{"name": "num_detections"}]}).encode()
    )
    told = {one["name"]: one for one in all_.json["outputs"]}
    assert told["num_detections"]["data"] == [0, 2]
    assert told["boxes"]["shape"] == [2, 2, 4]
    assert told["boxes"]["data"] == [0] * 8 + [4, 1, 8, 3, 0, 0, 4, 2]
    assert told["labels"]["data"] == ["", "", "cat", "dog"]
    assert (told["scores"]["shape"], told["scores"]["data"][:2]) == ([2, 2], [0, 0])
    assert [one["name"] for one in some.json["outputs"]] == ["num_detections"]
    described = worker.ask({"body": b""}, headers={"x-ember-metadata": "1"})[0].json
    assert [one["name"] for one in described["outputs"]] == list(told)
    assert [one["datatype"] for one in described["outputs"]] == [one["datatype"] for one in told.values()]


def test_a_net_whose_candidates_do_not_fit_the_labels_never_becomes_ready(make_worker, export_artifact, tmp_path):
    probe = {"image": base64.b64encode(picture()).decode()}
    artifact = export_artifact(tmp_path / "fp32", finder(), SPEC, probe, ("cat", "dog", "cow"), task="detection")
    with pytest.raises(ValueError, match="candidates of 6 numbers; 7 are required"):
        make_worker(artifact, "detection_handler.py")


def test_the_archive_takes_the_handler_of_the_task_and_the_document_tells_its_answers(artifact, worker, tmp_path):
    keys = signing.create_keys(tmp_path / "keys")

    def archived(handler):
        settings = Archive(model="pets", versions={"fp32": "1.0"}, handler=handler)
        return write_archive(artifact, settings, tmp_path / "pets.yaml", store=tmp_path / "store", keys=keys)

    info = read_archive(archived("auto").path)
    assert info.handler == "detection_handler.py"
    posted = document([info], server="http://router")["paths"]["/predictions/pets"]["post"]
    assert {"image/jpeg", "image/png"} <= set(posted["requestBody"]["content"])
    schema = posted["responses"]["200"]["content"]["application/json"]["schema"]
    for answer in worker.ask(picture(), picture(0)):
        Draft202012Validator(schema).validate(answer.json)
    with pytest.raises(EmberlineError, match="`detection` or `auto`, as the task is that"):
        archived("image")
