"""Rows for `_compressed`, and its "trained" run, by `python bench_rows.py recipe.yaml`. Nothing is trained.

A row's label is what the float net says of it, so an artifact's accuracy is its agreement with that net.
"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from emberline.data import Splits

_SPLITS = (32, 64, 16)  # train (for calibration), validation, test


class _Rows(list[tuple[dict[str, Any], int]]):
    """Rows in memory."""


def pictures() -> Splits:
    return _split([_picture(number) for number in range(sum(_SPLITS))])


def _picture(number: int) -> bytes:
    draw = np.random.default_rng(number)
    coarse = draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((224, 224)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _split(values: list[bytes]) -> Splits:
    from emberline import assets, models
    from emberline.artifact import read_artifact
    from emberline.recipe import load_recipe

    here = Path(__file__).parent
    preprocessing = load_recipe(here / "recipe.yaml").preprocessing.model_dump(mode="json")
    apply = assets.handler_module("ember_preprocessing").Preprocessing(preprocessing)
    trained = here / "runs" / "bench" / "artifacts" / "trained"
    model = models.build(trained, read_artifact(trained)[1])
    batch = torch.from_numpy(np.stack([apply({"image": value})[0] for value in values]))
    with torch.no_grad():
        labels = torch.cat([model(piece).argmax(1) for piece in batch.split(16)]).tolist()
    rows = _Rows(({"image": value}, label) for value, label in zip(values, labels, strict=True))
    first, second = _SPLITS[0], _SPLITS[0] + _SPLITS[1]
    return Splits(_Rows(rows[:first]), _Rows(rows[first:second]), _Rows(rows[second:]))


def _train(path: Path) -> None:
    from safetensors.torch import save_file

    from emberline import models
    from emberline.artifact import Artifact, to_json
    from emberline.paper import write_paper
    from emberline.recipe import load_recipe

    recipe = load_recipe(path)
    torch.manual_seed(0)
    model = models.create(recipe.model)
    model.train()  # statistics as training leaves them: random ones let activations grow from layer to layer
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(8, 3, 224, 224))
    folder = path.parent / "runs" / recipe.run
    with write_paper(folder, "run", recipe=recipe.digest) as run:
        pass
    described = Artifact(
        model=recipe.model, weights="model.safetensors", preprocessing=recipe.preprocessing, labels=recipe.labels
    )
    trained = folder / "artifacts" / "trained"
    with write_paper(trained, "artifact", recipe=recipe.digest, parent=run.manifest) as draft:
        save_file(model.state_dict(), draft.folder / "model.safetensors")
        (draft.folder / "artifact.json").write_bytes(to_json(described))


if __name__ == "__main__":
    _train(Path(sys.argv[1]).resolve())
