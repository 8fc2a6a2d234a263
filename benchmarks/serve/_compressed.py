"""Artifacts of one net by `emberline compress`: int8 for us, fp32 for the peers, and how often the two agree.

Peers serve the float net as PyTorch runs it, in eager mode: that is what there is before `emberline compress`. What it
makes of the float net, compiled, is served by some of them as well, and shows which part of a ratio is int8's.

The nets are untrained (MiniLM's shape, not its weights), so that nothing has to be downloaded. The rows' labels are
what the float net itself says of them: accuracy, and the gate of it, are agreement with fp32 therefore.
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

from emberline import paper

GATE = 0.02
NETS: dict[str, dict[str, Any]] = {
    "image": {
        "model": {"factory": "emberline.models.mobilenet:mobilenet_v2", "arguments": {"num_classes": 10}},
        "preprocessing": {
            "inputs": [{"name": "image", "kind": "image"}],
            "steps": [{"op": "resize", "size": [224, 224]}, {"op": "scale", "by": 1 / 255}, {"op": "channels_first"}],
        },
        "precision": "int8",
        "rows": "pictures",
        "classes": 10,
    },
    "text": {
        "model": {"factory": "emberline.models.encoder:encoder", "arguments": {"classes": 2}},
        "preprocessing": {
            "inputs": [{"name": "text", "kind": "text", "length": 128, "tokenizer": "words", "vocabulary": 30522}]
        },
        "precision": "int8_dynamic",
        "rows": "sentences",
        "classes": 2,
    },
}


@dataclass(frozen=True)
class Artifacts:
    """Folders of artifacts of one net.

    Attributes:
        agreement: of int8 with fp32, the share of validation rows.
    """

    int8: Path
    compiled: Path
    eager: Path
    agreement: float

    @property
    def of_peers(self) -> dict[str, Path]:
        """What each peer serves. BentoML batches arrays of rows, which neither a JPEG nor a text is."""
        eager = dict.fromkeys(("mosec", "fastapi", "litserve", "triton", "torchserve_stock"), self.eager)
        return {**eager, **{f"{name}{COMPILED}": self.compiled for name in ("fastapi", "triton")}}


def artifacts(kind: str) -> Artifacts:
    """Those of the net `kind`; made when not there yet."""
    folder = CACHE / f"compressed-{kind}"
    made = folder / "runs" / "bench" / "artifacts"
    if not (made / "int8" / "manifest.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench_rows.py").write_text(Path(__file__).with_name("_rows.py").read_text())
        _write_recipe(folder / "recipe.yaml", NETS[kind])
        for command in (["bench_rows.py", "recipe.yaml"], ["-m", "emberline.cli", "compress", "recipe.yaml"]):
            done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError((done.stdout + done.stderr)[-3000:])
    measured = json.loads((made / "int8" / "artifact.json").read_bytes())["measurement"]
    return Artifacts(made / "int8", made / "fp32", _eager(made / "fp32"), 1 - measured["accuracy_drop"])


def _eager(compiled: Path) -> Path:
    """The float artifact with the exported program alone, which runs in eager mode."""
    folder = compiled.with_name("eager")
    if not (folder / "manifest.json").is_file():
        described = json.loads((compiled / "artifact.json").read_text())
        described["packages"] = [one for one in described["packages"] if one["backend"] == "exported"]
        with paper.write_paper(folder, "artifact", seed=0) as draft:
            for name in ("exported.pt2", "probe.json"):
                shutil.copy(compiled / name, draft.folder)
            (draft.folder / "artifact.json").write_text(json.dumps(described))
    return folder


def _write_recipe(path: Path, net: dict[str, Any]) -> None:
    export = {"stage": "export", "max_batch": 32}
    int8 = [{"stage": "quantize", "precision": net["precision"]}, export]
    recipe = {
        "run": "bench",
        "model": net["model"],
        "data": {"source": f"bench_rows:{net['rows']}"},
        "preprocessing": net["preprocessing"],
        "labels": [str(number) for number in range(net["classes"])],
        "compress": {
            "batch_sizes": [1, 16],
            "artifacts": {
                "fp32": {"stages": [export]},
                "int8": {"stages": int8, "gates": {"max_accuracy_drop": GATE}},
            },
        },
    }
    path.write_text(yaml.safe_dump(recipe))
