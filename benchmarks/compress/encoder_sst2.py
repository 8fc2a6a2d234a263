"""A MiniLM-class encoder on SST-2: half of its layers, distilled, int8, against the fine-tuned MiniLM-L6.

The run comes of `recipes/sst2-encoder.yaml`: about an hour on one core. All are timed on the same batches of
validation sentences, at the lengths of the data: nothing is padded beyond the longest sentence of its batch.
"""

from pathlib import Path
from typing import Any

from _trained import ratios, side_by_side, trained

from emberline.compress.context import prepare
from emberline.data import load
from emberline.recipe import load_recipe

TARGET = (
    "8 times as fast as eager at the data's lengths, at most 15 MB, drop at most 1.5 points with its bound on "
    "1,500 rows; int8 without distillation at most 23 MB"
)
TRIALS = 1


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the same run each time
    run = trained("sst2-encoder")
    recipe = load_recipe(run.folder / "recipe.yaml")  # with the rows that it was trained on
    validation = load(recipe.data, None).validation
    rows, _ = prepare(recipe, validation, range(len(validation)))
    small, whole = run.packages("small"), run.packages("int8")
    peers = [name for name, one in whole.items() if one.description["packages"][0]["backend"] != "aoti"]
    kept = {name: one for name, one in whole.items() if name in peers}
    measured = side_by_side([*small.values(), *kept.values(), run.eager(folder)], inputs=rows)
    return {
        "accuracy": run.losses("small"),
        "int8": run.losses("int8"),
        "int8_mb": min(one.size_bytes(one.description["packages"][0]) for one in whole.values()) / 1e6,
        "mean_tokens": float((rows[0] != 0).sum(1).mean()),
        "at_the_lengths_of_the_data": ratios(measured, list(small), peers),
    }


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    last = trials[-1]
    reached = (
        min(one["times_eager"] for one in last["at_the_lengths_of_the_data"].values()) >= 8
        and last["at_the_lengths_of_the_data"]["1"]["mb"] <= 15
        and last["accuracy"]["drop"] <= 0.015
        and last["accuracy"]["rows"] >= 1500
        and last["int8_mb"] <= 23
    )
    return {**last, "reached": reached}
