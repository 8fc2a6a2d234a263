"""Quantization: the model's program in fewer bits, and the list of layers that it promises to compute so."""

from typing import Any

import torch
from torch import nn

from emberline.compress import aware, gpu, kernels, layers
from emberline.compress.context import Context
from emberline.compress.dynamic_int8 import calls_of, dynamic_layers, dynamic_program
from emberline.compress.embeddings import with_int8_tables
from emberline.compress.halves import half_program
from emberline.compress.program import trace
from emberline.compress.sensitivity import sensitivity
from emberline.compress.smooth import smoothed
from emberline.compress.state import State
from emberline.compress.static_int8 import Int8
from emberline.errors import InvalidSetting, StageFailed
from emberline.recipe import Quantize

_SENSITIVITY_ROWS = 64


def quantize(state: State, settings: Quantize, context: Context) -> State:
    """One program beside the float model; nothing may stay in floating point that int8 was promised for.

    Raises:
        InvalidSetting: a layer to skip is not there.
        StageFailed: the model cannot be traced, has nothing to quantize, or a layer was left out; names the layers.
    """
    if settings.precision in {"bf16", "fp16"}:
        program = half_program(state.model, settings.precision, context)
        return state.after(quantized=program, precision=settings.precision, note={"precision": settings.precision})
    if settings.precision == "fp8":
        return _fp8(state, settings, context)
    model, tables = with_int8_tables(state.model) if settings.embeddings == "int8" else (state.model, ())
    if settings.precision == "int8_embeddings":
        return _tables_only(state, model, tables, context)
    rows = _calibration_rows(settings, context)
    graph = Int8(context, rows).graph(model)
    calls = promised = kernels.promised_layers(graph)  # a layer that is called twice is twice among them
    if settings.precision == "int8_dynamic":
        promised = dynamic_layers(model)
    left = _left(model, promised)
    if not promised:
        fact = "the model has no convolution or linear layer to quantize"
        hint = f"no int8 kernel computes {', '.join(left)}; precision bf16 or fp16 takes any layer" if left else None
        raise StageFailed("quantize", fact, hint=hint)
    if left:
        context.log.say(f"quantize: {', '.join(left)} stay in floating point: no int8 kernel computes such layers")
    skipped, ranks = _skipped(model, promised, rows, settings)
    note: dict[str, Any] = {"precision": settings.precision, "float_layers": [*left, *skipped], "int8_tables": tables}
    note["sensitivity"] = ranks
    if settings.smooth is not None:
        model, facts = smoothed(model, rows, settings.smooth)
        graph, note = Int8(context, rows).graph(model), {**note, **facts}
    if settings.precision == "int8_dynamic":
        program, chosen = dynamic_program(model, skipped, context)
        quantized = calls_of(model, calls, chosen)
        return state.after(
            quantized=program, precision="int8", int8_layers=quantized, int8_tables=tables,
            note={**note, "int8_layers": quantized},
        )  # fmt: skip
    int8 = Int8(context, rows, skipped)
    after = state.after(
        quantized=int8.program(graph),
        precision="int8",
        int8_layers=tuple(name for name in promised if name not in skipped),
        int8_tables=tables,
        calibration_rows=len(rows[0]),
    )
    note |= {"reduce_range": context.target.reduce_range, "int8_layers": after.int8_layers}
    if settings.aware_training is not None:
        return aware.improve(after, model, settings.aware_training, int8, note)
    return after.after(note=note)


def _fp8(state: State, settings: Quantize, context: Context) -> State:
    """A promise that the export keeps on the GPU: such layers compute nowhere else, so no program is kept here.

    Raises:
        MissingTool, StageFailed: there is no GPU, or it knows no fp8.
    """
    gpu.require(context.target.capability, "fp8")
    model, tables = with_int8_tables(state.model) if settings.embeddings == "int8" else (state.model, ())
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    skipped = _named(model, linear, settings)
    chosen = tuple(name for name in linear if name not in skipped)
    if not chosen:
        raise StageFailed("quantize", "the model has no linear layer for fp8 to quantize", hint="bf16 takes any layer")
    note = {"precision": "fp8", "int8_tables": tables, "fp8_layers": chosen}
    return state.after(quantized=None, precision="fp8", int8_layers=chosen, int8_tables=tables, note=note)


def _left(model: nn.Module, promised: list[str]) -> list[str]:
    """Layers with weights that no int8 kernel computes: recurrent ones, transposed convolutions, a user's own."""
    return [
        f"{name or type(layer).__name__} ({type(layer).__name__})"
        for name, layer in model.named_modules()
        if any(one.dim() > 1 for one in layer.parameters(recurse=False)) and not layers.within(name, promised)
    ]


def _tables_only(state: State, model: nn.Module, tables: tuple[str, ...], context: Context) -> State:
    if not tables:
        hint = "precision int8 covers convolutions and linear layers"
        raise StageFailed("quantize", "the model has no embedding for int8_embeddings to quantize", hint=hint)
    program = trace(model, context, stage="quantize")
    return state.after(quantized=program, precision="int8", int8_tables=tables, note={"int8_tables": tables})


def _calibration_rows(settings: Quantize, context: Context) -> list[torch.Tensor]:
    rows = [torch.from_numpy(array) for array in context.cut(context.training_rows(settings.calibration_rows))]
    if len(rows[0]) < settings.calibration_rows and "calibration_rows" in settings.model_fields_set:
        context.log.say(f"quantize: calibrated with the {len(rows[0])} training rows there are")
    return rows


def _named(model: nn.Module, promised: list[str], settings: Quantize) -> list[str]:
    """Promised layers that `skip_layers` names, or whose parent it names.

    Raises:
        InvalidSetting: one of its patterns means no layer, or none that would be quantized.
    """
    found: list[str] = []
    for pattern in settings.skip_layers:
        meant = layers.matching(model, [pattern], stage="quantize", key="skip_layers")
        under = [name for name in promised if layers.within(name, meant)]
        if not under:
            kind = "fp8" if settings.precision == "fp8" else "int8"
            hint = f"those are {', '.join(dict.fromkeys(promised))}; `embeddings: float` keeps tables of embeddings"
            raise InvalidSetting("stage quantize", "skip_layers", pattern, f"a layer that would be {kind}", hint=hint)
        found += under
    return [name for name in promised if name in found]


def _skipped(
    model: nn.Module, promised: list[str], rows: list[torch.Tensor], settings: Quantize
) -> tuple[tuple[str, ...], dict[str, float]]:
    """Layers that stay in floating point, and how sensitive each layer is, by name."""
    skipped = _named(model, promised, settings)
    known = dict(model.named_modules())
    alone = [name for name in promised if isinstance(known.get(name), layers.WEIGHTED)]
    ranks = sensitivity(model, alone, tuple(array[:_SENSITIVITY_ROWS] for array in rows))
    most = [name for name in ranks if name not in skipped][: settings.skip_sensitive]
    if len({*skipped, *most}) == len(set(promised)):
        keys = "skip_layers and skip_sensitive"
        raise StageFailed("quantize", f"{keys} leave no layer of {len(promised)} to quantize", hint="skip fewer")
    return (*skipped, *most), ranks
