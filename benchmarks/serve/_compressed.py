"""Artifacts of one net by `emberline compress`: a compressed one for us, fp32 for the peers, and what lies between.

Peers serve the float net as PyTorch runs it, in eager mode: that is what there is before `emberline compress`. What it
makes of the float net, compiled, is served by some of them as well, and shows which part of a ratio is compression's.

The net of pictures is untrained, so that nothing has to be downloaded. The labels of its rows are what the float net
itself says of them: accuracy, and the gate of it, are agreement with fp32 therefore. The net of texts is a trained one.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from _models import CACHE
from _throughput import COMPILED
from runs import run_with

from emberline import paper, storage
from emberline.artifact import DESCRIPTION

GATE = 0.02
PICTURES: dict[str, Any] = {
    "model": {"factory": "emberline.models.mobilenet:mobilenet_v2", "arguments": {"num_classes": 10}},
    "preprocessing": {
        "inputs": [{"name": "image", "kind": "image"}],
        "steps": [{"op": "resize", "size": [224, 224]}, {"op": "scale", "by": 1 / 255}, {"op": "channels_first"}],
    },
}


@dataclass(frozen=True)
class Artifacts:
    """Folders of artifacts of one net.

    Attributes:
        accuracy_drop: of ours against fp32, a share of the validation rows.
    """

    ours: Path
    compiled: Path
    eager: Path
    accuracy_drop: float

    @property
    def of_peers(self) -> dict[str, Path]:
        """What each peer serves. BentoML batches arrays of rows, which neither a JPEG nor a text is."""
        eager = dict.fromkeys(("mosec", "fastapi", "litserve", "triton", "torchserve_stock"), self.eager)
        return {**eager, **{f"{name}{COMPILED}": self.compiled for name in ("fastapi", "triton")}}


def untrained_pictures() -> Artifacts:
    """MobileNetV2 in int8; made when not there yet."""
    folder = CACHE / "compressed-image"
    made = folder / "runs" / "bench" / "artifacts"
    if not (made / "int8" / "manifest.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench_rows.py").write_text(Path(__file__).with_name("_rows.py").read_text())
        _write_recipe(folder / "recipe.yaml")
        for command in (["bench_rows.py", "recipe.yaml"], ["-m", "emberline.cli", "compress", "recipe.yaml"]):
            done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError((done.stdout + done.stderr)[-3000:])
    return _artifacts(made / "int8", made / "fp32")


def trained(run: str, name: str) -> Artifacts:
    """The artifact `name` of a run that its recipe's commands trained and compressed.

    Raises:
        FileNotFoundError: it is not there; names the recipe.
    """
    made = run_with(run, f"artifacts/{name}/{paper.MANIFEST}") / "artifacts"
    return _artifacts(made / name, made / "fp32")


def _artifacts(ours: Path, fp32: Path) -> Artifacts:
    measured = json.loads((ours / "artifact.json").read_bytes())["measurement"]
    return Artifacts(ours, fp32, _eager(fp32), measured["accuracy_drop"])


def _eager(compiled: Path) -> Path:
    """The float artifact with the exported program alone, which runs in eager mode."""
    folder = CACHE / f"eager-{storage.content_hash(compiled / paper.MANIFEST)[:16]}"  # another training is another
    if not (folder / paper.MANIFEST).is_file():
        described = json.loads((compiled / DESCRIPTION).read_text())
        kept = [one for one in described["packages"] if one["backend"] == "exported"]
        left_out = {one["file"] for one in described["packages"] if one not in kept} | {paper.MANIFEST, DESCRIPTION}
        with paper.write_paper(folder, "artifact", seed=0) as draft:
            for file in compiled.iterdir():
                if file.name not in left_out:
                    shutil.copy(file, draft.folder)
            (draft.folder / DESCRIPTION).write_text(json.dumps({**described, "packages": kept}))
    return folder


def _write_recipe(path: Path) -> None:
    export = {"stage": "export", "max_batch": 32}
    int8 = [{"stage": "quantize", "precision": "int8"}, export]
    recipe = {
        "run": "bench",
        **PICTURES,
        "data": {"source": "bench_rows:pictures"},
        "labels": [str(number) for number in range(10)],
        "compress": {
            "batch_sizes": [1, 16],
            "artifacts": {
                "fp32": {"stages": [export]},
                "int8": {"stages": int8, "gates": {"max_accuracy_drop": GATE}},
            },
        },
    }
    path.write_text(yaml.safe_dump(recipe))
