"""Detection and segmentation from the recipes that ship, by the verbs: trained, compressed, archived, asked."""

import base64
import io
import json
import subprocess
import sys
import zipfile

import ember_boxes
import ember_masks
import numpy as np
import pytest
from PIL import Image

from emberline import data
from emberline.archivefile import read_archive
from emberline.artifact import Probe
from emberline.recipe import load_recipe
from emberline.serve import probe

INT8 = [{"stage": "quantize", "calibration_rows": 64}, {"stage": "export", "backends": ["onnx"], "max_batch": 8}]
FEWER = (
    "data.arguments={train: 256, validation: 64, test: 16}",
    "train.epochs=6",
    "train.warmup_steps=5",
    "compress.batch_sizes=[1]",
    "compress.artifacts.fp32.stages=[{stage: export, backends: [onnx], max_batch: 8}]",
    f"compress.artifacts.int8.stages={json.dumps(INT8)}",
    "compress.artifacts.int8.gates.max_accuracy_drop=0.2",
)


class Made:
    """What the verbs made of one recipe."""

    def __init__(self, folder, recipe):
        settings = [part for one in FEWER for part in ("--set", one)]
        for verb in ("train", "compress", "archive"):
            more = ("--nproc-per-node", "1") if verb == "train" else ()
            command = [sys.executable, "-m", "emberline.cli", verb, str(recipe), *settings, *more]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        self.recipe = load_recipe(recipe, FEWER)
        self.archives = {one.stem.rpartition("-")[2]: one for one in (folder / "store").glob("*.mar")}
        self.run = json.loads((folder / "runs" / self.recipe.run / "manifest.json").read_bytes())["facts"]

    def worker(self, make_worker, version):
        path = self.archives[version]
        return make_worker(None, read_archive(path).handler, lambda folder: zipfile.ZipFile(path).extractall(folder))

    def pictures(self, count):
        """Test pictures twice as large as the net takes them, and their labels."""
        rows = data.load(self.recipe.data, None).test
        pairs = [rows[index] for index in range(count)]
        return [enlarged(instance["image"]) for instance, _ in pairs], [label for _, label in pairs]

    def expects(self, version):
        with zipfile.ZipFile(self.archives[version]) as archive:
            return Probe.model_validate_json(archive.read("probe.json"))


def enlarged(content):
    file = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.resize((128, 128)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def make(tmp_path_factory, root):
    return lambda name: Made(tmp_path_factory.mktemp(name), root / f"recipes/shapes-{name}.yaml")


def require_probe(made, worker, version):
    """The very check of `emberline serve` before it calls a version ready."""
    expected = made.expects(version)
    (answer,) = worker.ask(json.dumps(expected.instance).encode())
    assert probe.compare(answer.json, expected) == ("matched", "")
    other = next(worker.ask(one)[0].json for one in made.pictures(16)[0] if expected.answer)
    assert probe.compare(other, expected)[0] == "mismatched"
    assert probe.compare({"outputs": [1.0]}, expected)[0] == "mismatched"


def test_shapes_are_found_from_training_to_the_handler(make, make_worker):
    made = make("detection")
    assert made.run["map50"] > 0.5
    assert made.run["data_digest"]["rows"] == 256
    for version in ("1.0", "1.1"):
        card = read_archive(made.archives[version]).card
        assert (card["task"], card["data_digest"]) == ("detection", made.run["data_digest"])
        worker = made.worker(make_worker, version)
        pictures, truth = made.pictures(16)
        first, bad, *rest = worker.ask(pictures[0], pictures[0][:60], *pictures[1:])
        assert (bad.status, bad.json["field"]) == (400, "image")
        found = 0
        for answer, objects in zip([first, *rest], truth, strict=True):
            assert answer.status == 200, answer.body
            found += sum(
                any(
                    one["label"] == made.recipe.labels[int(number)]
                    and ember_boxes.overlaps(np.array([one["box"]]), 128 * np.array([box]))[0, 0] >= 0.5
                    for one in answer.json["detections"]
                )
                for number, *box in objects
            )
        assert found >= 0.5 * sum(map(len, truth))
        require_probe(made, worker, version)


@pytest.mark.long  # detection goes the same way in the quick set
def test_pixels_are_told_apart_from_training_to_the_handler(make, make_worker):
    made = make("segmentation")
    assert made.run["mean_iou"] > 0.5
    for version in ("1.0", "1.1"):
        worker = made.worker(make_worker, version)
        pictures, truth = made.pictures(16)
        first, bad, *rest = worker.ask(pictures[0], pictures[0][:60], *pictures[1:])
        assert (bad.status, bad.json["field"]) == (400, "image")
        right = []
        for answer, mask in zip([first, *rest], truth, strict=True):
            got = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json["mask"]))))
            assert got.shape == (128, 128)
            right.append((got == ember_masks.resized(mask, (128, 128)))[ember_masks.resized(mask, (128, 128)) > 0])
            assert sum(answer.json["shares"].values()) == pytest.approx(1, abs=1e-5)
        assert np.concatenate(right).mean() > 0.5
        require_probe(made, worker, version)
