"""Tracing a model into a program of any batch size, and texts of any length, with errors that name the layer."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn import functional

from emberline import assets, models
from emberline.compress.agreement import largest_error
from emberline.compress.context import Context
from emberline.data.tokens import Bounds
from emberline.errors import InvalidSetting, StageFailed

_EXAMPLE_ROWS = 8  # any number above 1: torch takes a batch of 1 for a constant
_SAME = 1e-4  # relative error between a text's answers with and without padding: sums in another order are 1e-6 apart
_FIXED = "for a model that needs texts of one length set padding: length on its input"


def trace(
    model: nn.Module,
    context: Context,
    *,
    stage: str,
    training: bool = False,
    largest: int | None = None,
    place: torch.device | None = None,
) -> torch.export.ExportedProgram:
    """`torch.export` with the batch dimension free from 1 to the largest batch, and so are the tokens of texts.

    Args:
        training: as the model is trained, not as it is served.
        largest: rows of the largest batch, where it is not the one to be served.
        place: where the model is, if not on the CPU.

    Raises:
        StageFailed: the model fails in forward, decides by its data, or fixes its batch size or length.
    """
    batch = torch.export.Dim("batch", min=1, max=largest or context.max_batch)
    example = context.example(min(_EXAMPLE_ROWS, context.max_batch), "middle")
    if place is not None:
        example = tuple(one.to(place) for one in example)
    if not isinstance(model, torch.fx.GraphModule):
        require_forward(model, example, stage)
        model.train(training)
    try:
        with torch.no_grad():
            return torch.export.export(model, example, dynamic_shapes=_shapes(model, context.bounds, batch))
    except GuardOnDataDependentSymNode as error:
        raise StageFailed(
            stage,
            f"layer {models.failing_layer(error, model)} decides by the values of its data: {_call(error)}",
            hint="use torch.where or torch.cond, which can be exported, in place of `if` and `while` on tensors",
        ) from error
    except torch._dynamo.exc.UserError as error:  # noqa: SLF001 - the exception has no public name
        first = next((line.strip(" -") for line in str(error).splitlines()[1:] if line.strip()), str(error))
        raise StageFailed(
            stage,
            f"the model takes only some {'batch sizes or lengths' if any(context.bounds) else 'batch sizes'}: {first}",
            hint="keep the batch dimension free: x.flatten(1), or x.view(x.shape[0], …) in place of x.view(8, …)"
            + (f"; {_FIXED}" if any(context.bounds) else ""),
        ) from error
    except Exception as error:
        # whatever else a user's own forward raises while it is traced
        layer = models.failing_layer(error, model) or type(model).__name__
        raise StageFailed(stage, f"layer {layer} cannot be exported: {_first_line(error)}") from error


def _shapes(model: nn.Module, bounds: Bounds, batch: Any) -> tuple[Any, ...]:
    """The free dimensions of each input, in the form that the forward's own parameters ask for."""
    free = tuple(
        {0: batch} if one is None else {0: batch, 1: torch.export.Dim(f"tokens{number}", min=one.least, max=one.most)}
        for number, one in enumerate(bounds)
    )
    kinds = [one.kind for one in inspect.signature(model.forward).parameters.values()]
    return (free,) if inspect.Parameter.VAR_POSITIONAL in kinds and len(kinds) == 1 else free


def require_forward(model: nn.Module, example: tuple[torch.Tensor, ...], stage: str) -> None:
    """Runs the model once; what it raises becomes one clear line that names the layer."""
    try:
        with torch.no_grad():
            model.eval()(*example)
    except Exception as error:
        layer = models.failing_layer(error, model) or type(model).__name__
        shapes = ", ".join(str(list(tensor.shape)) for tensor in example)
        raise StageFailed(
            stage,
            f"layer {layer} fails in forward with {type(error).__name__}: {_first_line(error)}",
            hint=f"it was given inputs of shape {shapes}, as preprocessing.inputs and preprocessing.steps make them",
        ) from error


def require_usable(model: nn.Module, context: Context) -> None:
    """Asks the model for two rows before any stage works on it.

    Raises:
        StageFailed: it fails in forward; names the layer. Or what it says of a text depends on how far that is padded.
        InvalidSetting: its first output is not of the shape that the recipe's task and labels ask for.
    """
    example = context.example(2, "most")
    require_forward(model, example, "compress")
    _require_free_lengths(model, context)
    with torch.no_grad():
        answer = model(*example)
    shape, count = list(assets.handler_module("ember_backends").outputs_of(answer)[0].shape), len(context.recipe.labels)
    rows, each = len(example[0]), f"a score for each of the recipe's {count} labels,"
    sides = example[0].shape[-2:]
    fits, required = {
        "detection": (len(shape) > 2 and shape[-1] == 4 + count, f"[{rows}, …, {4 + count}], four sides and {each}"),  # noqa: PLR2004 - rows, candidates, numbers
        "segmentation": (shape == [rows, count, *sides], f"{[rows, count, *sides]}, for each pixel {each}"),
    }.get(context.recipe.train.task, (not count or shape == [rows, count], f"{[rows, count]}, {each}"))
    if not fits:
        hint = "name every class in `labels`, in the order of the model's outputs, or mend model.arguments"
        raise InvalidSetting("labels", "the shape of the model's first output", shape, required, hint=hint)


def _require_free_lengths(model: nn.Module, context: Context) -> None:
    """Texts cut to the least length answer alike as they are and padded to the most."""
    if not any(context.bounds):
        return
    short = context.example(2, "least")
    padded = tuple(
        one if free is None else functional.pad(one, (0, free.most - free.least))
        for one, free in zip(short, context.bounds, strict=True)
    )
    names = ", ".join(spec.name for spec in context.recipe.preprocessing.inputs if spec.kind == "text")
    outputs_of = assets.handler_module("ember_backends").outputs_of
    with torch.no_grad():
        expected = outputs_of(model.eval()(*padded))
        try:
            got = outputs_of(model(*short))
        except Exception as error:
            # a user's own forward may raise anything; that it took the padded text says what is wrong
            layer = models.failing_layer(error, model) or type(model).__name__
            fact = f"layer {layer} fails on texts of other lengths ({names}): {_first_line(error)}"
            raise StageFailed("compress", fact, hint=_FIXED) from error
    apart, where = largest_error([one.numpy() for one in got], [one.numpy() for one in expected])
    if not apart <= _SAME:
        fact = f"the answer to a text ({names}) is {apart:.2g} away from the same text's with padding{where}"
        hint = f"mask token 0, which is padding, in the model; {_FIXED}"
        raise StageFailed("compress", fact, hint=hint)


def _call(error: Exception) -> str:
    """The user's own line, from torch's long message."""
    lines = [line.strip() for line in str(error).splitlines()]
    for position, line in enumerate(lines[:-1]):
        if line.startswith("File ") and ", in " in line:
            return f"{line.removeprefix('File ')}: {lines[position + 1]}"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
