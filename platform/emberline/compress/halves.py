"""bf16 and fp16: the whole model in half the bits, floats at its borders as before."""

import copy
from typing import Any

import torch
from torch import nn

from emberline.compress.context import Context
from emberline.compress.program import require_forward, trace

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Half(nn.Module):
    """Floats in, floats out, halves between."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = copy.deepcopy(model).to(dtype), dtype

    def forward(self, *inputs: torch.Tensor) -> Any:
        answer = self.model(*[one.to(self.dtype) if one.is_floating_point() else one for one in inputs])
        if isinstance(answer, tuple | list):
            return tuple(_wide(one) for one in answer)
        return _wide(answer)


def half_program(model: nn.Module, precision: str, context: Context) -> torch.export.ExportedProgram:
    """The model's program in bf16 or fp16.

    Raises:
        StageFailed: a layer cannot compute in that type on this machine; names it.
    """
    half = Half(model, TYPES[precision]).eval()
    require_forward(half, context.example(2), "quantize")
    return trace(half, context, stage="quantize")


def _wide(output: torch.Tensor) -> torch.Tensor:
    return output.float() if output.is_floating_point() else output
