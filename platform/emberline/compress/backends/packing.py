"""Convolutions of AOTInductor packages whose weights are packed while compiling, though the batch dimension is free.

oneDNN wants a convolution's weights laid out for the shapes it will meet. Where the batch dimension is free, torch 2.13
expects no shape and has float weights packed anew at each call, which for small pictures takes longer than all else.
The layout depends on channels, the picture's size and the CPU, and hardly on the rows: packed for one it serves all.
Where it does not suit, on an older CPU for instance, oneDNN packs anew at the call, as before.

int8 weights are left as torch packs them. Which layout is the faster there differs from one CPU to the next.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

from emberline.compress.backends.replacing import replaced

_WEIGHT, _GEOMETRY = 1, slice(3, 7)  # places of arguments; the latter: padding, stride, dilation, groups
_PLANNED_WEIGHT = 2  # the same of torch's planner of convolutions


@contextmanager
def convolutions_packed() -> Iterator[None]:
    """While compiling, one more pass follows torch's freezing of weights, and its planner is told what comes of it."""
    from torch._inductor import freezing

    module: Any = freezing
    passes: Callable[..., None] = module.freezing_passes

    def packing(graph: fx.GraphModule, example_inputs: Any) -> None:
        passes(graph, example_inputs)
        _pack(graph)

    with replaced(module, "freezing_passes", packing), _planned_channels_last():
        yield


def _pack(module: fx.GraphModule) -> None:
    from torch._inductor.fx_passes.mkldnn_fusion import _eliminate_duplicate_packed_nodes

    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=torch.ops.mkldnn._convolution_pointwise.default):  # noqa: SLF001 - its name
        weight = node.args[_WEIGHT]
        if weight.op == "get_attr":  # else it is packed already, or computed
            arguments = (weight, *node.args[_GEOMETRY], _shape(node.args[0]))
            with graph.inserting_before(node):
                packed = graph.call_function(torch.ops.mkldnn._reorder_convolution_weight, arguments)  # noqa: SLF001
            node.update_arg(_WEIGHT, packed)
    _eliminate_duplicate_packed_nodes(module)  # type: ignore[no-untyped-call]  # of weights that convolutions share
    module.recompile()


def _shape(inputs: fx.Node) -> list[int]:
    """Of a convolution's inputs: one row where their number is free, the example's size where another dimension is."""
    from torch.fx.experimental.symbolic_shapes import optimization_hint

    rows, *rest = inputs.meta["val"].shape
    return [1 if isinstance(rows, torch.SymInt) else rows, *(optimization_hint(size) for size in rest)]


@contextmanager
def _planned_channels_last() -> Iterator[None]:
    """Corrects what torch 2.13 plans for a packed convolution of one input channel and a free batch dimension.

    It takes the output for channels first, as a kernel with weights that are not packed would write it. One with packed
    weights, as all int8 ones have, writes channels last, and every later layer reads mixed-up channels. The one branch
    is taken away for these. Were it to move in another release, the agreement with the reference fails and nothing is
    shipped.
    """
    from torch._inductor import mkldnn_ir

    planner: Any = mkldnn_ir
    prepare = planner._prepare_convolution_fusion_create  # noqa: SLF001 - there is no public way

    def corrected(*args: Any, **kwargs: Any) -> Any:
        if not _is_packed(args[_PLANNED_WEIGHT]):
            return prepare(*args, **kwargs)
        with replaced(planner, "is_contiguous_storage_and_layout", lambda _layout: False):
            return prepare(*args, **kwargs)

    with replaced(planner, "_prepare_convolution_fusion_create", corrected):
        yield


def _is_packed(weight: Any) -> bool:
    from torch._inductor.virtualized import V

    weight.realize()
    constant = V.graph.constants.get(weight.get_name())
    return constant is not None and bool(constant.is_mkldnn)
