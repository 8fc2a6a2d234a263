import json
from pathlib import Path

import pytest
import torch
from torch import nn

from emberline.artifact import Artifact, Package, Probe, to_json
from emberline.paper import write_paper
from emberline.recipe import Input, Model, Preprocessing

NUM_INPUTS, NUM_CLASSES = 6, 3


def interpreted_artifact(folder: Path, hidden: int, max_batch: int = 16) -> Path:
    """An artifact whose one package is an exported program: made in a moment, run by the same loader as any other."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(NUM_INPUTS, hidden), nn.ReLU(), nn.Linear(hidden, NUM_CLASSES)).eval()
    row = torch.linspace(-1, 1, NUM_INPUTS)
    batch = torch.export.Dim("batch", min=1, max=max_batch)
    with torch.no_grad():
        program = torch.export.export(module, (row.repeat(4, 1),), dynamic_shapes=({0: batch},))
        expected = module(row[None])[0].tolist()
    artifact = Artifact(
        model=Model(factory="torch.nn:Identity"),
        preprocessing=Preprocessing(inputs=(Input(name="x", shape=(NUM_INPUTS,)),)),
        packages=(Package(file="exported.pt2", backend="exported", precision="fp32", max_batch=max_batch),),
    )
    with write_paper(folder, "artifact") as draft:
        torch.export.save(program, draft.folder / "exported.pt2")
        (draft.folder / "artifact.json").write_bytes(to_json(artifact))
        probe = Probe(instance={"x": row.tolist()}, expected=tuple(expected), tolerance=1e-4)
        (draft.folder / "probe.json").write_bytes(to_json(probe))
    return folder


@pytest.fixture(scope="session")
def small_and_large(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("artifacts")
    return interpreted_artifact(root / "small", 8), interpreted_artifact(root / "large", 100_000)


@pytest.fixture
def description():
    return lambda folder: json.loads((folder / "artifact.json").read_bytes())
