"""Segmentation as clients meet it: a picture in, the class of each of its pixels out."""

import base64
import io
import json

import ember_masks
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from emberline import signing
from emberline.archive.store import write_archive
from emberline.archivefile import read_archive
from emberline.openapi import document
from emberline.recipe import Archive

SPEC = {
    "inputs": [{"name": "image", "kind": "image"}],
    "steps": [{"op": "resize", "size": [4, 8]}, {"op": "scale", "by": 1 / 255}, {"op": "channels_first"}],
}


def picture(size=(8, 4), bright=0.25, form="PNG"):
    """White on the left, as far as `bright` says, and black on the right."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : int(bright * width)] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def base64_of(content):
    return base64.b64encode(content).decode()


def brightness():
    """Class 1 where a pixel is bright."""
    import torch
    from torch import nn

    class Brightness(nn.Module):
        def forward(self, x):
            light = x.mean(1, keepdim=True) - 0.5
            return torch.cat([-light, light], dim=1)

    return Brightness()


@pytest.fixture(scope="module")
def artifact(export_artifact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation") / "fp32"
    return export_artifact(
        folder, brightness(), SPEC, {"image": base64_of(picture())}, ("dark", "bright"), task="segmentation"
    )


@pytest.fixture(scope="module")
def worker(make_worker, artifact):
    return make_worker(artifact, "segmentation_handler.py")


def test_the_mask_is_a_png_of_class_numbers_in_the_size_of_the_picture_that_was_sent(worker):
    same, other = worker.ask(picture(), picture((64, 48), bright=0.5))
    expected = np.zeros((4, 8), int)
    expected[:, :2] = 1
    assert ember_masks.from_png(same.json["mask"]).tolist() == expected.tolist()
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(other.json["mask"]))))
    assert (mask.dtype, mask.shape) == (np.uint8, (48, 64))
    assert mask[:, :32].all()
    assert not mask[:, 32:].any()
    assert same.json["shares"] == {"dark": 0.75, "bright": 0.25}


def test_resizing_takes_what_stands_at_the_middle_of_each_pixel():
    classes = np.arange(4).reshape(2, 2)
    assert ember_masks.resized(classes, (4, 2)).tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert ember_masks.resized(classes, (1, 3)).tolist() == [[2, 3, 3]]
    assert ember_masks.resized(classes, (2, 2)).tolist() == classes.tolist()


@pytest.mark.parametrize(("bad", "field"), [(picture()[:40], "image"), (b'{"image": "aGVsbG8="}', "image")])
def test_a_bad_image_fails_only_its_own_row(worker, bad, field):
    before, refused, after = worker.ask(picture(), bad, picture())
    assert (before.status, refused.status, after.status) == (200, 400, 200), refused.body
    assert refused.json["field"] == field
    assert before.json == after.json


def test_open_inference_tells_masks_as_base64_and_shares_as_numbers(worker):
    texts = [base64_of(picture()), base64_of(picture((64, 48), bright=0.5))]
    call = {"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": texts}]}
    (answer,) = worker.ask(json.dumps(call).encode())
    told = {one["name"]: one for one in answer.json["outputs"]}
    assert [ember_masks.from_png(one).shape for one in told["mask"]["data"]] == [(4, 8), (48, 64)]
    assert (told["shares"]["shape"], told["shares"]["data"]) == ([2, 2], [0.75, 0.25, 0.5, 0.5])
    described = worker.ask({"body": b""}, headers={"x-ember-metadata": "1"})[0].json
    assert [one["name"] for one in described["outputs"]] == ["mask", "shares"]


def test_the_archive_takes_the_handler_of_the_task_and_the_document_tells_its_answers(artifact, worker, tmp_path):
    keys, settings = signing.create_keys(tmp_path / "keys"), Archive(model="light", versions={"fp32": "1.0"})
    made = write_archive(artifact, settings, tmp_path / "light.yaml", store=tmp_path / "store", keys=keys)
    info = read_archive(made.path)
    assert info.handler == "segmentation_handler.py"
    posted = document([info], server="http://router")["paths"]["/predictions/light"]["post"]
    schema = posted["responses"]["200"]["content"]["application/json"]["schema"]
    many = json.dumps({"instances": [{"image": base64_of(picture())}] * 2}).encode()
    for answer in worker.ask(picture(), many):
        Draft202012Validator(schema).validate(answer.json)
