"""What passes from stage to stage, and how it is kept on disk between runs.

A folder of the cache: `state.json`, and, as far as the stages have come, `model.safetensors` (the float module's
weights), `quantized.pt2` (the program of lower precision, interpreted), and the finished packages.
"""

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from emberline import models, storage
from emberline.artifact import PROBE, ChannelEdit, Package, Precision
from emberline.compress.context import Context
from emberline.compress.kept import sealed
from emberline.compress.plan import STATE
from emberline.recipe import Model, Recipe

WEIGHTS = "model.safetensors"
QUANTIZED = "quantized.pt2"


@dataclass(frozen=True)
class State:
    """Between two stages.

    Attributes:
        model: the float module, pruned as `edits` say; stages replace it, or change it in place and hand it on.
        factory: what made `model`, where that is not the recipe's: a student has one of its own.
        edits: what pruning removed so far, in order.
        masked: layers whose zeros are there to stay: pruning put them there weight by weight.
        quantized: the program of `model` in a lower precision, or None.
        precision: what that program computes in.
        int8_layers: layers that it promises to compute in int8.
        int8_tables: embeddings that it stores as int8.
        calibration_rows: training rows its scales come from; a backend with a quantizer of its own takes as many.
        packages: exported programs in the order of the fallback chain; their files are in `folder`.
        note: what the stage that made this state reports of its work.
    """

    model: nn.Module
    factory: Model | None = None
    edits: tuple[ChannelEdit, ...] = ()
    masked: tuple[str, ...] = ()
    quantized: torch.export.ExportedProgram | None = None
    precision: Precision = "fp32"
    int8_layers: tuple[str, ...] = ()
    int8_tables: tuple[str, ...] = ()
    calibration_rows: int = 0
    packages: tuple[Package, ...] = ()
    folder: Path | None = None
    note: dict[str, Any] = field(default_factory=dict)

    def after(self, **changes: Any) -> "State":
        """A copy with changes; the note starts empty."""
        return replace(self, **{"note": {}, **changes})

    def noted(self, context: Context, seconds: float) -> "State":
        """With what every stage reports: accuracy on the validation rows, weights, time."""
        program = self.model.eval() if self.quantized is None else self.quantized.module()
        facts = {
            "accuracy": context.accuracy(program),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "weights_bytes": _weights_bytes(self),
            "seconds": seconds,
        }
        return replace(self, note={**self.note, **facts})

    def kept_in(self, folder: Path) -> "State":
        """The same state, its package files now in `folder`."""
        return replace(self, folder=folder)


def _weights_bytes(state: State) -> int:
    """Bytes of the parameters, as they are or as the program of lower precision keeps them."""
    half, int8 = state.precision in {"bf16", "fp16"}, {*state.int8_layers, *state.int8_tables}
    return sum(
        parameter.numel() * (2 if half else 1 if name.rpartition(".")[0] in int8 and parameter.dim() > 1 else 4)
        for name, parameter in state.model.named_parameters()
    )


def write_state(state: State, target: Path) -> None:
    """Puts a state on disk, whole or not at all."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.model.state_dict().items()}
    save_file(tensors, partial / WEIGHTS)
    if state.quantized is not None:
        torch.export.save(state.quantized, partial / QUANTIZED)
    for package in state.packages:
        shutil.copyfile(Path(str(state.folder)) / package.file, partial / package.file)
    if state.packages:
        shutil.copyfile(Path(str(state.folder)) / PROBE, partial / PROBE)
    described = {
        "factory": state.factory.model_dump(mode="json") if state.factory else None,
        "edits": [edit.model_dump(mode="json") for edit in state.edits],
        "masked": state.masked,
        "packages": [package.model_dump(mode="json") for package in state.packages],
        "quantized": state.quantized is not None,
        "precision": state.precision,
        "int8_layers": state.int8_layers,
        "int8_tables": state.int8_tables,
        "calibration_rows": state.calibration_rows,
        "note": state.note,
    }
    storage.write_bytes(partial / STATE, sealed(described, partial))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def read_state(folder: Path, recipe: Recipe, search: Path | None) -> State:
    """The state a stage left, its module rebuilt from factory, edits and weights."""
    described = json.loads((folder / STATE).read_bytes())
    edits = tuple(ChannelEdit.model_validate(edit) for edit in described["edits"])
    factory = Model.model_validate(described["factory"]) if described["factory"] else None
    model = models.create(factory or recipe.model, search)
    models.apply_edits(model, edits, models.example_inputs(recipe.preprocessing))
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    quantized = None
    if described["quantized"]:
        # the operators of a quantized program are registered by this import
        import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401

        quantized = torch.export.load(folder / QUANTIZED)
    return State(
        model=model.eval(),
        factory=factory,
        edits=edits,
        masked=tuple(described["masked"]),
        quantized=quantized,
        precision=described["precision"],
        int8_layers=tuple(described["int8_layers"]),
        int8_tables=tuple(described["int8_tables"]),
        calibration_rows=described["calibration_rows"],
        packages=tuple(Package.model_validate(package) for package in described["packages"]),
        folder=folder,
        note=described["note"],
    )
