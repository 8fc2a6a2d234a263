"""A MiniLM-class encoder on SST-2: a third of its layers, distilled, int8, against the fine-tuned MiniLM-L6.

The run comes of `recipes/sst2-encoder.yaml`: about two hours on 2 cores. Eager PyTorch takes each sentence at its own
length, as it would be served; a package takes all at the recipe's length, padding included.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _trained import EAGER, Trained, ratios, side_by_side, trained

from emberline.compress.context import prepare
from emberline.data import load
from emberline.measure.worker import time_interleaved
from emberline.recipe import Recipe, load_recipe

TARGET = (
    "8 times as fast as eager at the data's lengths, at most 15 MB, drop at most 1.5 points with its bound on "
    "1,500 rows; int8 without distillation at most 23 MB"
)
TRIALS = 1
RECIPE = Path(__file__).parents[2] / "recipes" / "sst2-encoder.yaml"
SENTENCES = 64


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the same run each time
    run, recipe = trained("sst2-encoder", "recipes/sst2-encoder.yaml"), load_recipe(RECIPE)
    rows, _ = prepare(recipe, load(recipe.data, RECIPE.parent).validation, range(SENTENCES))
    small, whole = run.packages("small"), run.packages("int8")
    peers = [name for name, one in whole.items() if one.description["packages"][0]["backend"] != "aoti"]
    kept = {name: one for name, one in whole.items() if name in peers}
    measured = side_by_side([*small.values(), *kept.values(), run.eager(folder)], inputs=rows)
    return {
        "accuracy": run.losses("small"),
        "int8": run.losses("int8"),
        "int8_mb": min(one.size_bytes(one.description["packages"][0]) for one in whole.values()) / 1e6,
        "padded": ratios(measured, list(small), peers),
        "at_the_lengths_of_the_data": own_lengths(
            run, recipe, rows[0], ratios(measured, list(small), peers)["1"]["best"]
        ),
    }


def own_lengths(run: Trained, recipe: Recipe, ids: np.ndarray[Any, Any], best: str) -> dict[str, Any]:
    """Sentence by sentence: the trained net without padding against the best package with it, taking turns."""
    from emberline import assets, models
    from emberline.artifact import read_artifact

    torch.set_num_threads(1)
    folder = run.folder / "artifacts" / "trained"
    net = models.build(folder, read_artifact(folder)[1], RECIPE.parent)
    eager = assets.handler_module("ember_backends").as_program(net)
    one = run.packages("small")[best]
    package = one.description["packages"][0]
    program = assets.handler_module("ember_packages").open_program(one.folder, package, print)
    length = recipe.preprocessing.inputs[0].length
    with torch.inference_mode():
        pairs = [
            time_interleaved([eager, program], [(row[None, : int((row != 0).sum())],), (row[None],)], 7, 5.0)
            for row in ids
        ]
    cpu = {
        name: [float(np.median(pair[which]["cpu_ms"])) for pair in pairs] for which, name in enumerate((EAGER, best))
    }
    return {
        "sentences": len(ids),
        "mean_tokens": float((ids != 0).sum(1).mean()),
        "padded_to": length,
        "ms": {name: float(np.mean(values)) for name, values in cpu.items()},
        "times_eager": sum(cpu[EAGER]) / sum(cpu[best]),
    }


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    last = trials[-1]
    reached = (
        last["at_the_lengths_of_the_data"]["times_eager"] >= 8
        and last["padded"]["1"]["mb"] <= 15
        and last["accuracy"]["drop"] <= 0.015
        and last["accuracy"]["rows"] >= 1500
        and last["int8_mb"] <= 23
    )
    return {**last, "reached": reached}
