"""An archive that emberline did not make, with a handler that TorchServe ships, goes the whole way unmodified."""

import io
import json
import subprocess
import sys

import duckdb
import httpx
import pytest
import yaml

from emberline import process, signing
from emberline.experiment import Status, write_status

pytestmark = pytest.mark.long

# what TorchServe's image_classifier imports beside torch; these libraries are no dependencies of ours
TORCHVISION = """
import numpy, torch

class transforms:
    class Compose:
        def __init__(self, steps): self.steps = steps
        def __call__(self, value):
            for step in self.steps: value = step(value)
            return value
    class Resize:
        def __init__(self, size): self.size = size
        def __call__(self, image): return image.convert("RGB").resize((self.size, self.size))
    class CenterCrop(Resize): pass
    class ToTensor:
        def __call__(self, image): return torch.from_numpy(numpy.array(image)).permute(2, 0, 1) / 255
    class Normalize:
        def __init__(self, mean, std): self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        def __call__(self, value): return (value - self.mean[:, None, None]) / self.std[:, None, None]
"""
CAPTUM = """
import sys

class IntegratedGradients:
    def __init__(self, model): pass

sys.modules["captum.attr"] = sys.modules["captum"]
"""
EXPERIMENT = {
    "apiVersion": "emberline.dev/v1",
    "kind": "Experiment",
    "metadata": {"name": "photos"},
    "spec": {
        "model": "photo",
        "variants": [{"name": "new", "version": "1.1"}, {"name": "old", "version": "1.0", "control": True}],
        "primary": {"metric": "correct", "kind": "rate", "margin": -0.01},
        "ramp": [{"weight": 5000}],
    },
}


@pytest.fixture
def photos(tmp_path, keys):
    """Two versions of a classifier of colours, made by torch-model-archiver alone, and signed."""
    import torch

    torch.manual_seed(0)
    parts, store = tmp_path / "parts", tmp_path / "store"
    parts.mkdir()
    store.mkdir()
    (parts / "torchvision.py").write_text(TORCHVISION)
    (parts / "captum.py").write_text(CAPTUM)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 5))
    torch.jit.script(net.eval()).save(str(parts / "model.pt"))
    for version in ("1.0", "1.1"):
        options = ["--model-name", "photo", "--version", version, "--handler", "image_classifier"]
        options += ["--serialized-file", parts / "model.pt", "--export-path", parts]
        options += ["--extra-files", f"{parts / 'torchvision.py'},{parts / 'captum.py'}"]
        subprocess.run([sys.executable, "-m", "model_archiver.model_packaging", *options], check=True)
        signing.sign((parts / "photo.mar").rename(store / f"photo-{version}.mar"), keys)
    return store


@pytest.fixture
def route(tmp_path):
    """Starts a router before two versions; it is stopped by the test, so that all it logged is shipped."""
    started = []

    def start(address):
        (tmp_path / "state" / "experiments").mkdir(parents=True)
        (tmp_path / "state" / "experiments" / "photos.yaml").write_text(yaml.safe_dump(EXPERIMENT))
        status = Status(phase="Ramping", weights={"new": 5000, "old": 5000})
        write_status(tmp_path / "state" / "experiments", "photos", status)
        upstreams = ["--upstream", f"photo@1.0={address}", "--upstream", f"photo@1.1={address}"]
        command = [sys.executable, "-m", "emberline.cli", "route", *upstreams, "--default", "photo=1.0", "--port", "0"]
        started.append(process.start(command, name="route", cwd=tmp_path, log=tmp_path / "route.log"))
        paper = tmp_path / "state" / "route.json"
        process.wait_until(paper.is_file, 60, "the router")
        return started[0], json.loads(paper.read_bytes())["address"]

    yield start
    for child in started:
        child.stop(30)


def test_archive_with_torchserves_own_handler_is_served_routed_and_compared(start, photos, route, tmp_path):
    from PIL import Image

    server = start("--store", photos).ready()
    assert "carries no probe" in server.output
    router, address = route(server.state["inference"])
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(picture, "PNG")
    with httpx.Client(timeout=60) as client:
        for unit in range(40):
            headers = {"x-unit-id": f"u{unit}", "content-type": "image/png"}
            answer = client.post(f"{address}/predictions/photo", content=picture.getvalue(), headers=headers)
            assert answer.status_code == 200, answer.text
            assert sum(answer.json().values()) == pytest.approx(1.0, abs=1e-3)
    assert router.stop(30) == 0
    rows = duckdb.sql(f"select version, status from '{tmp_path}/data/exposures/*/*.parquet'").fetchall()
    assert len(rows) == 40
    assert {version for version, _ in rows} == {"1.0", "1.1"}
    options = ["--data", tmp_path / "data", "--report", tmp_path / "report"]
    command = [sys.executable, "-m", "emberline.cli", "compare", tmp_path / "state/experiments/photos.yaml", *options]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "report" / "photos" / "index.html").is_file()
