"""Plain modules as candidates: `module:function`, eager or compiled, in the form of the packages."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emberline import assets, models
from emberline.recipe import Model


def build(reference: str, search: Path) -> nn.Module:
    """Calls the function without arguments; the module is put in eval mode.

    Raises:
        InvalidSetting, EmberlineError: there is no such function, it failed, or it returned no module.
    """
    return models.create(Model(factory=reference), search).eval()


def program(module: nn.Module, *, compiled: bool) -> Callable[[Sequence[Any]], list[Any]]:
    """The module as numpy in, numpy out; `compiled` by torch.compile, weights frozen as AOTInductor freezes them."""
    run = assets.handler_module("ember_backends").as_program
    if not compiled:
        return run(module)  # type: ignore[no-any-return]  # handlers are imported by name
    from torch._inductor import config

    config.freezing = True
    return run(torch.compile(module, dynamic=True))  # type: ignore[no-any-return]


def dtype(module: nn.Module) -> str:
    """Of the parameters, as artifacts name precisions."""
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    found = {names.get(parameter.dtype, str(parameter.dtype)) for parameter in module.parameters()}
    return "+".join(sorted(found)) or "-"
