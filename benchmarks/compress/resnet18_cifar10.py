"""ResNet-18's layout on CIFAR-10, pruned to half, distilled, int8: accuracy, size, and speed at 32 and 224 pixels.

The run comes of `recipes/cifar10-resnet18.yaml`: about two hours on 2 cores. A package is of one picture size, so for
224 pixels a net of the same layout, pruned alike, is compiled with random weights: there only time is told.
"""

from pathlib import Path
from typing import Any

from _pipeline import compress, pictures
from _trained import Trained, ratios, side_by_side, trained

from emberline.measure import Candidate

TARGET = (
    "20 times as fast as eager at 224 pixels and twice as fast as the best peer's int8 of the whole net, at most 5 MB, "
    "drop at most 0.5 points with its bound on 10,000 rows"
)
TRIALS = 1


def trial(folder: Path, number: int) -> dict[str, Any]:  # noqa: ARG001 - the same run each time
    run = trained("cifar10-resnet18")
    return {"accuracy": run.losses("small"), "32": _ratios(run, folder), "224": at_224(folder / "large")}


def at_224(folder: Path, size: int = 224) -> dict[str, Any]:
    """The layout at another picture size, whole and pruned, in the same rounds."""
    folder.mkdir()
    pruned = [{"stage": "prune", "ratio": 0.5, "round_to": 16}]
    compress(pictures(folder, "emberline.models.resnet:resnet18", size=size, more={"small": pruned}))
    return _ratios(Trained("bench", folder / "runs" / "bench", {}), folder)


def _ratios(run: Trained, scratch: Path) -> dict[str, Any]:
    small, whole = run.packages("small"), run.packages("int8")
    peers = [name for name, one in whole.items() if _backend(one) != "aoti"]
    kept = {name: one for name, one in whole.items() if name in peers}
    measured = side_by_side([run.eager(scratch), *small.values(), *kept.values()])
    return ratios(measured, list(small), peers)


def _backend(one: Candidate) -> str:
    return str(one.description["packages"][0]["backend"])


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    last = trials[-1]
    large, accuracy = last["224"]["1"], last["accuracy"]
    reached = (
        large["times_eager"] >= 20
        and (large["times_peer"] or 0) >= 2
        and last["32"]["1"]["mb"] <= 5
        and accuracy["drop"] <= 0.005
        and accuracy["rows"] >= 10_000
    )
    return {"accuracy": accuracy, "32": last["32"], "224": last["224"], "reached": reached}
