"""Images as clients send them: raw bytes, base64 in JSON, a field of a form."""

import base64
import io
import json

import pytest
from PIL import Image
from torch import nn

INPUT = {"inputs": [{"name": "image", "kind": "image"}]}
STEPS = [{"op": "resize", "size": [8, 6]}, {"op": "scale", "by": 1 / 255}, {"op": "channels_first"}]


def picture(form="PNG", size=(6, 8), mode="RGB"):
    file = io.BytesIO()
    Image.radial_gradient("L").convert(mode).resize(size).save(file, form)
    return file.getvalue()


def base64_of(content):
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def worker(make_worker, export_artifact, tmp_path_factory):
    artifact = export_artifact(
        tmp_path_factory.mktemp("image") / "fp32",
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 6, 2)),
        {**INPUT, "steps": STEPS},
        {"image": base64_of(picture())},
        labels=("cat", "dog"),
    )
    return make_worker(artifact, "image_handler.py")


def test_every_way_to_send_an_image_gets_the_same_answer(worker):
    png = picture()
    text = base64_of(png)
    answers = worker.ask(
        png,
        bytearray(png),
        {"data": png},
        {"image": png},
        json.dumps({"image": text}).encode(),
        json.dumps({"image": f"data:image/png;base64,{text}"}).encode(),
    )
    assert [answer.status for answer in answers] == [200] * 6
    for answer in answers:
        assert answer.json["scores"] == pytest.approx(answers[0].json["scores"], abs=1e-6)


def test_images_of_any_size_and_mode_share_a_batch(worker):
    answers = worker.ask(picture("JPEG"), picture(size=(300, 200)), picture(mode="RGBA"), picture(mode="L"))
    assert [answer.status for answer in answers] == [200] * 4


def test_open_inference_takes_base64_as_bytes(worker):
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [base64_of(picture())] * 2}
    (answer,) = worker.ask(json.dumps({"inputs": [tensor]}).encode())
    assert answer.json["outputs"][0]["shape"] == [2, 2]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (picture()[:40], "image"),
        (picture("JPEG")[:100], "image"),
        (b"\x89PNG", "image"),
        (b"\xff\xd8\xff" + b"\0" * 100, "image"),
        (picture("GIF"), "body"),
        (b"", "body"),
        (b'{"image": "%%%"}', "image"),
        (b'{"image": "aGVsbG8="}', "image"),
        (b'{"image": [[1, 2], [3, 4]]}', "image"),
        (b'{"image": null}', "image"),
        ({"picture": picture()}, "picture"),
        ({"image": b"hello"}, "body"),
    ],
)
def test_a_bad_image_fails_only_its_own_row(worker, request_, field):
    before, bad, after = worker.ask(picture(), request_, picture())
    assert (before.status, bad.status, after.status) == (200, 400, 200), bad.body
    assert bad.json["field"] == field


def test_where_nothing_resizes_an_image_of_another_size_is_refused(make_worker, export_artifact, tmp_path):
    artifact = export_artifact(
        tmp_path / "fp32",
        nn.Sequential(nn.Flatten(), nn.Linear(8 * 6 * 3, 2)),
        {**INPUT, "steps": STEPS[1:]},
        {"image": base64_of(picture())},
    )
    right, wrong = make_worker(artifact, "image_handler.py").ask(picture(), picture(size=(7, 8)))
    assert (right.status, wrong.status) == (200, 400)
    assert wrong.json["field"] == "image"


def test_bytes_of_another_kind_are_told_what_is_taken(worker):
    (answer,) = worker.ask(picture("GIF"))
    assert answer.json == {"error": "body: is neither a JPEG, nor a PNG, nor a JSON object", "field": "body"}
