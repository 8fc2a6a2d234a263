"""Quantization-aware training, where quantization after training lost too much, against a control of equal cost.

The control spends the same processor time on training the float model further, and is quantized after. What answers
most validation rows rightly is kept, so training aware of quantization has to earn its place.
"""

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from emberline.compress.context import Context
from emberline.compress.masks import zeros_kept
from emberline.compress.program import trace
from emberline.compress.smooth import INVERSE
from emberline.compress.state import State
from emberline.compress.static_int8 import Int8, quiet, run
from emberline.data import Instance, Rows, Splits
from emberline.errors import StageFailed
from emberline.recipe import AwareTraining
from emberline.train.finetune import finetune

_TIMED_STEPS = 4
_LARGEST_BATCH = 4096  # of the training graph, which is evaluated in larger batches than are served


def improve(after: State, model: nn.Module, settings: AwareTraining, int8: Int8, note: dict[str, Any]) -> State:
    """The best of three: quantized after training as it is, trained aware of it, and the control.

    Args:
        after: quantized after training.
        model: the float model as it was quantized: embeddings may be int8 already.
    """
    context = int8.context
    plain, quantized = context.accuracy(after.model.eval()), _accuracy(after, context)
    facts: dict[str, Any] = {"float": plain, "after_training": quantized, "tried": plain - quantized > settings.above}
    if not facts["tried"]:
        return after.after(note={**note, "aware_training": facts})
    context.log.say(f"quantize: {100 * (plain - quantized):.2f} points lost; training aware of quantization …")
    begin = time.process_time()
    aware = _trained_aware(after, model, settings, int8)
    seconds = time.process_time() - begin
    epochs = max(1, round(seconds / _epoch_seconds(model, settings, context)))
    context.log.say(f"quantize: the control trains the float model for {epochs} epochs, as long as that took …")
    control = _control(after, model, settings, int8, epochs)
    states = {"after_training": after, "aware": aware, "control": control}
    accuracies = {
        "after_training": quantized,
        **{name: _accuracy(states[name], context) for name in ("aware", "control")},
    }
    kept = max(accuracies, key=lambda name: accuracies[name])  # the first of equals, which is the cheaper
    facts |= {**accuracies, "cpu_seconds": seconds, "control_epochs": epochs, "kept": kept}
    said = ", ".join(f"{name} {value:.2%}" for name, value in accuracies.items())
    context.log.say(f"quantize: {said}; {kept} is kept")
    return states[kept].after(note={**note, "aware_training": facts})


def _accuracy(state: State, context: Context) -> float:
    return context.accuracy(state.model if state.quantized is None else state.quantized.module())


def _trained_aware(after: State, model: nn.Module, settings: AwareTraining, int8: Int8) -> State:
    trained = copy.deepcopy(after.model)
    prepared = prepare_aware(model, int8.quantizer(aware=True), int8)
    train(prepared, settings, int8.context, settings.epochs, masked=after.masked)
    take_weights(trained, prepared)
    return after.after(model=trained.eval(), quantized=int8.converted(prepared))


def _control(after: State, model: nn.Module, settings: AwareTraining, int8: Int8, epochs: int) -> State:
    longer, trained = copy.deepcopy(model), copy.deepcopy(after.model)
    train(longer, settings, int8.context, epochs, masked=after.masked)
    take_weights(trained, longer)
    return after.after(model=trained.eval(), quantized=int8.program(int8.graph(longer.eval())))


def prepare_aware(model: nn.Module, quantizer: Any, int8: Int8) -> torch.fx.GraphModule:
    """The model's training graph with fake quantization, whose observers have seen the calibration rows."""
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    program = trace(copy.deepcopy(model), int8.context, stage="quantize", training=True, largest=_LARGEST_BATCH)
    with quiet():
        prepared: torch.fx.GraphModule = prepare_qat_pt2e(program.module(), quantizer)
    allow_exported_model_train_eval(prepared)
    prepared.eval()
    with torch.no_grad():  # scales are infinite until something was seen
        run(prepared, int8.rows, int8.context.max_batch, int8.context.bounds)
    return prepared


def take_weights(model: nn.Module, trained_one: nn.Module) -> None:
    """Copies what was trained, by name; a table that was int8 while training has not changed and is not there.

    Weights that were smoothed for training are scaled back: the copy has nothing that would undo it.

    Raises:
        StageFailed: another weight has no namesake.
    """
    trained = {**dict(trained_one.named_parameters()), **dict(trained_one.named_buffers())}
    tables = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Embedding)}
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    named = {name: tensor for name, tensor in named.items() if name in trained or name not in tables}
    missing = [name for name in named if name not in trained]
    if missing:
        raise StageFailed("quantize", f"weights {', '.join(missing[:4])} are not in the training graph by name")
    with torch.no_grad():
        for name, tensor in named.items():
            inverse = f"{name.removesuffix('weight')}{INVERSE}"
            smooth = name.endswith(".weight") and inverse in trained and inverse not in named
            tensor.copy_(trained[name] * trained[inverse] if smooth else trained[name])


def train(
    model: nn.Module,
    settings: AwareTraining,
    context: Context,
    epochs: int,
    *,
    masked: tuple[str, ...] = (),
    splits: Splits | None = None,
) -> None:
    """Args:
    masked: layers whose zeros stay zero.
    """
    with context.log.progress("quantize", total=None) as advance, zeros_kept(model, masked):
        finetune(
            model, context.recipe, splits or context.splits, epochs=epochs, learning_rate=settings.learning_rate,
            search=context.search, progress=lambda _step, steps, loss: advance(1, steps, loss=loss),
        )  # fmt: skip


def _epoch_seconds(model: nn.Module, settings: AwareTraining, context: Context) -> float:
    """Processor time of one epoch of plain training, from a few steps of a copy."""
    whole = context.splits
    size = min(len(whole.train), _TIMED_STEPS * context.recipe.train.rows_per_batch)
    few = replace(whole, train=First(whole.train, size), validation=First(whole.validation, 1))
    begin = time.process_time()
    train(copy.deepcopy(model), settings, context, 1, splits=few)
    return (time.process_time() - begin) * len(whole.train) / size


@dataclass(frozen=True)
class First:
    """The first rows of some."""

    rows: Rows
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Instance, int]:
        return self.rows[index]
