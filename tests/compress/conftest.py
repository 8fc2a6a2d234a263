"""One small run, compressed once for all tests of this folder: compiling is what takes the time."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from emberline import data, models
from emberline.artifact import Artifact, to_json
from emberline.compress.context import Context
from emberline.compress.run import compress_recipe
from emberline.compress.target import this_machine
from emberline.paper import write_paper
from emberline.recipe import Recipe, load_recipe
from emberline.runlog import RunLog
from emberline.train.finetune import finetune

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: nothing can be compiled ahead of time")

RECIPE = {
    "run": "small",
    "model": {"factory": "emberline.models.digits:digits_cnn", "arguments": {"width": 16}},
    "data": {"source": "emberline.data.digits:digits"},
    "preprocessing": {
        "inputs": [{"name": "pixels", "shape": [8, 8], "minimum": 0, "maximum": 16}],
        "steps": [{"op": "scale", "by": 0.0625}, {"op": "reshape", "shape": [1, 8, 8]}],
    },
    "labels": [str(digit) for digit in range(10)],
    "compress": {
        "batch_sizes": [1, 7],
        "artifacts": {
            "fp32": {"stages": [{"stage": "export", "backends": ["aoti"], "max_batch": 8}]},
            "int8": {
                "stages": [
                    {"stage": "prune", "ratio": 0.5, "round_to": 4},
                    {"stage": "finetune", "epochs": 2, "learning_rate": 0.002},
                    {"stage": "quantize", "calibration_rows": 128},
                    {"stage": "export", "backends": ["aoti"], "max_batch": 8},
                ],
            },
        },
    },
}


@dataclass(frozen=True)
class Run:
    recipe_path: Path
    recipe: Recipe
    runs: Path

    @property
    def artifacts(self) -> Path:
        return self.runs / "small" / "artifacts"

    def describe(self, name: str) -> dict:
        return json.loads((self.artifacts / name / "artifact.json").read_bytes())

    def log_lines(self) -> list[str]:
        lines = (self.runs / "small" / "log.jsonl").read_text().splitlines()
        return [json.loads(line).get("text", "") for line in lines]

    def cached(self, stage: str) -> Path:
        return next((self.artifacts / ".cache").glob(f"{stage}-*"))

    def context(self, max_batch: int = 8) -> Context:
        settings = self.recipe.compress
        return Context(self.recipe, settings, None, this_machine(), ("aoti",), RunLog(), max_batch=max_batch)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Run:
    """A trained artifact, as `emberline train` leaves one, of a net small enough to be trained here."""
    root = tmp_path_factory.mktemp("compress")
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    recipe = load_recipe(path)
    torch.manual_seed(0)
    model = models.create(recipe.model)
    finetune(model, recipe, data.load(recipe.data, None), epochs=4, learning_rate=0.005)
    folder = root / "runs" / recipe.run
    with write_paper(folder, "run", recipe=recipe.digest) as run:
        pass
    artifact = Artifact(
        model=recipe.model, weights="model.safetensors", preprocessing=recipe.preprocessing, labels=recipe.labels
    )
    with write_paper(folder / "artifacts" / "trained", "artifact", recipe=recipe.digest, parent=run.manifest) as draft:
        save_file(model.state_dict(), draft.folder / "model.safetensors")
        (draft.folder / "artifact.json").write_bytes(to_json(artifact))
    return Run(path, recipe, root / "runs")


@pytest.fixture(scope="session")
def compressed(trained_run) -> Run:
    compress_recipe(trained_run.recipe_path, (), trained_run.runs)
    return trained_run
