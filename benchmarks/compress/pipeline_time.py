"""Quantization after training, export and all backends of a ResNet-18 at 224 pixels, and the same again, cached."""

from pathlib import Path
from typing import Any

from _pipeline import compress, pictures

TARGET = "at most 180 s on 2 cores, the report included; at most 5 s when nothing changed"
TRIALS = 1


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the same each time
    recipe = pictures(folder, "emberline.models.resnet:resnet18")
    first, report = compress(recipe)
    again, _ = compress(recipe)
    stages = {
        f"{name}: {stage['stage']}": stage["seconds"]
        for name, artifact in report["artifacts"].items()
        for stage in artifact["stages"]
    }
    return {"first_s": round(first, 1), "cached_s": round(again, 2), "stages": stages}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    first = sorted(one["first_s"] for one in trials)[len(trials) // 2]
    cached = sorted(one["cached_s"] for one in trials)[len(trials) // 2]
    return {"first_s": first, "cached_s": cached, "reached": first <= 180 and cached <= 5}
