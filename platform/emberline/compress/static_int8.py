"""Static int8 through PyTorch 2 Export: activations' scales from calibration rows, a scale a channel of weights."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from emberline.compress import kernels
from emberline.compress.context import Context
from emberline.compress.program import trace
from emberline.data.tokens import Bounds, cut
from emberline.errors import StageFailed

_BATCH = 64  # calibration rows at once


@dataclass(frozen=True)
class Int8:
    """How a model becomes int8.

    Attributes:
        skipped: layers that stay in floating point.
        rows: calibration rows, one tensor an input.
    """

    context: Context
    rows: Sequence[torch.Tensor]
    skipped: tuple[str, ...] = ()

    def quantizer(self, *, aware: bool = False) -> Any:
        """PyTorch's quantizer for x86."""
        import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86

        reduce_range = self.context.target.reduce_range
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=aware, reduce_range=reduce_range))
        for name in self.skipped:
            quantizer.set_module_name_qconfig(name, None)
        return quantizer

    def graph(self, model: nn.Module) -> torch.fx.GraphModule:
        """The model's float graph, ready to be prepared for quantization."""
        graph: torch.fx.GraphModule = trace(model, self.context, stage="quantize").module()
        graph.graph.eliminate_dead_code()  # else the quantizer stumbles over a dead node
        graph.recompile()
        return graph

    def program(self, graph: torch.fx.GraphModule) -> torch.export.ExportedProgram:
        """The int8 program of a float graph, with scales from the calibration rows."""
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        with torch.no_grad(), quiet():
            prepared: torch.fx.GraphModule = prepare_pt2e(graph, self.quantizer())
            run(prepared, self.rows, min(_BATCH, self.context.max_batch), self.context.bounds)
        return self.converted(prepared)

    def converted(self, prepared: torch.fx.GraphModule) -> torch.export.ExportedProgram:
        """The int8 program; every convolution and linear layer but the skipped ones is int8 in it.

        Raises:
            StageFailed: another one stayed in floating point; names them.
        """
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        with torch.no_grad(), quiet():
            graph = convert_pt2e(prepared)
            missed = [name for name in kernels.unquantized_layers(graph) if name not in self.skipped]
            if missed:
                raise StageFailed(
                    "quantize",
                    f"{len(missed)} layers stayed in floating point: {', '.join(missed)}",
                    hint="the quantizer does not know how these are built; put them into skip_layers",
                )
            return trace(graph, self.context, stage="quantize")


def run(program: Any, rows: Sequence[torch.Tensor], batch: int, bounds: Bounds) -> None:
    """Texts are as long as they are when served: what only padding would do is no matter for the scales."""
    for start in range(0, len(rows[0]), batch):
        pieces = cut([array[start : start + batch].numpy() for array in rows], bounds)
        program(*(torch.from_numpy(piece) for piece in pieces))


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchao about its own internals
        yield
