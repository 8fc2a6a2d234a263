"""What each layer lost and what became of the weights: for the report, and for the layers a failed gate names.

Kept in the cache beside the stages, so that a second run draws the same report without torch.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberline import storage
from emberline.compress.chain import Done

if TYPE_CHECKING:
    import torch
    from torch import nn

    from emberline.compress.context import Context
    from emberline.compress.state import State

_BUDGET_S = 10.0  # of forward passes for one kind of sensitivity
_MOST_ROWS = 64
_BINS = 61
_LARGEST_LAYERS = 6  # with a histogram of their own

Analysis = dict[str, Any]


def read_analysis(cache: Path, key: str) -> Analysis | None:
    """What an earlier run kept under a chain's key; None when there is nothing yet."""
    path = _path(cache, key)
    found: Analysis | None = json.loads(path.read_bytes()) if path.is_file() else None
    return found


def analyse(cache: Path, key: str, *, trained: "State", stages: Sequence[Done], context: "Context") -> Analysis:
    """Sensitivities by layer, as relative errors of the outputs, and histograms of the weights, before and after.

    `quantize`: one layer alone in int8, as that stage reports it. `prune`: one recorded removal alone, from the trained
    net.
    """
    from emberline.compress.state import read_state

    names = [one.name for one in stages]
    final = read_state(stages[-1].folder, context.recipe, context.search)
    found: Analysis = {"quantize": {}, "prune": {}, "histograms": {}}
    found["quantize"] = next((one.note["sensitivity"] for one in stages if "sensitivity" in one.note), {})
    if "prune" in names and final.factory is None:
        found["prune"] = _prune_errors(trained, final, context)
    found["histograms"] = _histograms(trained.model, final, rounded=bool(final.int8_layers))
    storage.write_bytes(_path(cache, key), json.dumps(found).encode())
    return found


def worst_layers(analysis: Analysis, stage: str, count: int = 3) -> list[tuple[str, float]]:
    """The layers that lost most in a stage; none where no layer can be told apart."""
    kind = "quantize" if stage in ("quantize", "export") else stage
    losses: dict[str, float] = analysis.get(kind) or {}
    return sorted(losses.items(), key=lambda entry: -entry[1])[:count]


def _path(cache: Path, key: str) -> Path:
    return cache / f"analysis-{key[:20]}.json"


def _prune_errors(trained: "State", final: "State", context: "Context") -> dict[str, float]:
    """Each removal alone; of several from one layer the worst."""
    import copy

    import torch

    from emberline import models

    example = context.example(_affordable_rows(trained.model, len(final.edits), context))
    traced = models.example_inputs(context.recipe.preprocessing)
    losses: dict[str, float] = {}
    with torch.no_grad():
        expected = _first(trained.model(*example))
        for edit in final.edits[len(trained.edits) :]:
            pruned = copy.deepcopy(trained.model)
            models.apply_edits(pruned, (edit,), traced)
            error = float((_first(pruned.eval()(*example)) - expected).norm() / expected.norm())
            losses[edit.layer] = max(error, losses.get(edit.layer, 0.0))
    return losses


def _affordable_rows(model: "nn.Module", passes: int, context: "Context") -> int:
    """As many validation rows as `passes` forward passes can look at in the time allowed."""
    import torch

    example = context.example(1)
    with torch.no_grad():
        model(*example)
        begin = time.monotonic()
        model(*example)
    row_s = max(time.monotonic() - begin, 1e-5)
    return max(1, min(_MOST_ROWS, int(_BUDGET_S / (max(passes, 1) * row_s)), len(context.validation[1])))


def _histograms(before: "nn.Module", final: "State", *, rounded: bool) -> dict[str, Any]:
    """Counts of the weights of all layers together and of the largest ones, trained and as they are served."""
    from emberline.compress.sensitivity import round_channels

    old, new = _weights(before), _weights(final.model)
    after = {
        name: round_channels(weight) if rounded and name in final.int8_layers else weight
        for name, weight in new.items()
    }
    shared = [name for name in old if name in after]
    largest = sorted(shared, key=lambda name: -old[name].numel())[:_LARGEST_LAYERS]
    drawn = {"all layers": _counts(list(old.values()), list(after.values()))}
    return {**drawn, **{name: _counts([old[name]], [after[name]]) for name in largest}}


def _counts(before: "list[torch.Tensor]", after: "list[torch.Tensor]") -> dict[str, Any]:
    import torch

    old, new = (torch.cat([one.detach().flatten() for one in some]) for some in (before, after))
    limit = float(max(old.abs().max(), new.abs().max()))
    return {
        "limit": limit,
        "before": torch.histc(old, _BINS, -limit, limit).int().tolist(),
        "after": torch.histc(new, _BINS, -limit, limit).int().tolist(),
    }


def _weights(model: "nn.Module") -> "dict[str, torch.Tensor]":
    """Matrices and kernels, by layer."""
    return {
        name: layer.weight.detach().float()
        for name, layer in model.named_modules()
        if _has_weight(model, name) and layer.weight.dim() > 1
    }


def _has_weight(model: "nn.Module", name: str) -> bool:
    import torch

    found = dict(model.named_modules()).get(name)
    return found is not None and isinstance(getattr(found, "weight", None), torch.Tensor)


def _first(answer: Any) -> "torch.Tensor":
    found: torch.Tensor = answer[0] if isinstance(answer, tuple | list) else answer
    return found
