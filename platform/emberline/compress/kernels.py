"""Proof that a package computes in int8: its quantized kernels, counted in the source it was compiled from."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from emberline.errors import StageFailed

_CALL = re.compile(rb"aoti_torch_(?:cpu__(?:q(?:conv|linear)|int_mm)|cuda__(?:int_mm|scaled_mm))\w*\(")
# what the quantizer promises to compute in int8; anything else that has weights stays in floating point
_PROMISED = (torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


def promised_layers(graph: torch.fx.GraphModule) -> list[str]:
    """Layers of a float graph that quantization promises to make int8, by their path in the model."""
    return [layer_of(node) for node in graph.graph.nodes if node.target in _PROMISED]


def unquantized_layers(graph: torch.fx.GraphModule) -> list[str]:
    """Promised layers of a converted graph whose input or weight does not come out of a dequantize."""
    return [
        layer_of(node)
        for node in graph.graph.nodes
        if node.target in _PROMISED and not all(_dequantized(argument) for argument in node.args[:2])
    ]


def layer_of(node: torch.fx.Node) -> str:
    """The path of the innermost module a node was traced from."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return paths[-1] if paths else node.name


def count_kernels(package: Path) -> int:
    """Calls of quantized kernels in the C++ that an AOTInductor package was compiled from."""
    with zipfile.ZipFile(package) as archive:
        sources = [archive.read(name) for name in archive.namelist() if name.endswith("wrapper.cpp")]
    if not sources:
        raise StageFailed("export", f"{package.name} holds no wrapper.cpp; its int8 kernels cannot be counted")
    return sum(len(_CALL.findall(source)) for source in sources)


def require_kernels(
    counted: int, promised: int, package: str, *, exactly: bool = True, repeated: Sequence[str] = ()
) -> None:
    """Fails when fewer kernels are int8 than the float graph promises: a silent fall-back to floating point.

    Args:
        exactly: more than promised fails too; a backend with a quantizer of its own may make more int8 than that.
        repeated: layers that the model calls more than once; the compiler leaves those of scales from calibration in
            floating point.
    """
    if counted < promised:
        hint = "leave the quantize stage out, or report this model: it would be slower than it claims"
        if repeated:
            named = ", ".join(repeated)
            hint = f"{named} is called more than once, which stays in floating point: put it into skip_layers"
        raise StageFailed(
            "export",
            f"{package} has {counted} int8 kernels; the model's {promised} convolutions and linear layers promise as "
            "many, so some run in floating point",
            hint=hint,
        )
    if exactly and counted > promised:
        raise StageFailed(
            "export",
            f"{package} has {counted} int8 kernels; the float graph promises {promised}, so a layer that was to stay "
            "in floating point did not",
            hint="look at skip_layers and skip_sensitive, or report this model",
        )


def _dequantized(argument: Any) -> bool:
    """Whether a value comes from a dequantize, looking through operators that only move or pool values."""
    node = argument
    while isinstance(node, torch.fx.Node) and node.op == "call_function":
        if "dequantize" in str(node.target):
            return True
        if node.target not in _TRANSPARENT:
            return False
        node = node.args[0]
    return False


_TRANSPARENT = (
    torch.ops.aten.flatten.using_ints,
    torch.ops.aten.view.default,
    torch.ops.aten.reshape.default,
    torch.ops.aten.permute.default,
)
