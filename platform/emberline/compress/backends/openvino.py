"""OpenVINO: its runtime, with NNCF's quantizer where a quantize stage ran, as one more candidate to be measured."""

import contextlib
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from emberline import assets
from emberline.artifact import Package
from emberline.compress.backends.onnx import require_known
from emberline.compress.context import Context
from emberline.compress.state import State
from emberline.errors import MissingTool

_CALIBRATION_ROWS = 256  # where the stage looked at none: NNCF wants some
_CALIBRATION_BATCH = 8
_INT8_LAYERS = ("Convolution", "FullyConnected", "MatMul", "Deconvolution", "Gather")


def convert_package(
    state: State, program: torch.export.ExportedProgram, folder: Path, max_batch: int, context: Context
) -> Package:
    """Converts the float program, its free dimensions free; NNCF makes it int8 where a quantize stage ran.

    A package is one file: a zip of OpenVINO's graph and weights.

    Raises:
        MissingTool: the extra `openvino` is not installed.
    """
    require_openvino()
    import openvino

    precision = require_known(state, "openvino")
    with _quiet():
        model = openvino.convert_model(program)
        shapes = [
            [-1, *tensor.shape[1:]] if one is None else [-1, -1]
            for tensor, one in zip(context.example(2), context.bounds, strict=True)
        ]
        model.reshape({entry: openvino.PartialShape(shape) for entry, shape in zip(model.inputs, shapes, strict=True)})
        if precision == "int8":
            model = _quantize(model, state.calibration_rows or _CALIBRATION_ROWS, context)
        plain = folder / "plain.xml"
        openvino.save_model(model, plain, compress_to_fp16=False)
    file = f"{precision}.openvino"
    backends = assets.handler_module("ember_backends")
    with zipfile.ZipFile(folder / file, "w", zipfile.ZIP_STORED) as package:
        for name, path in (
            (backends.OPENVINO_GRAPH, plain),
            (backends.OPENVINO_WEIGHTS, plain.with_suffix(".bin")),
        ):
            package.writestr(zipfile.ZipInfo(name), path.read_bytes())
            path.unlink()
    return Package(
        file=file,
        backend="openvino",
        precision=precision,
        max_batch=max_batch,
        needs=context.target.needs_of_runtime(precision),
        torch=torch.__version__,
        march=f"openvino {openvino.__version__.partition('-')[0]}",
        int8_kernels=count_kernels(backends.compile_openvino(folder / file, context.settings.threads)),
    )


def require_openvino() -> None:
    try:
        import nncf  # noqa: F401
        import openvino  # noqa: F401
    except ImportError as error:
        raise MissingTool(
            str(error.name), "no OpenVINO package can be made", hint="pip install 'emberline[openvino]'"
        ) from error


def count_kernels(compiled: Any) -> int:
    """Layers that the compiled model, as OpenVINO will run it, computes in 8 bits."""
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return sum(
        info["layerType"].astype(str) in _INT8_LAYERS and info["runtimePrecision"].astype(str) in ("i8", "u8")
        for info in infos
    )


def _quantize(model: Any, rows: int, context: Context) -> Any:
    import nncf

    inputs = context.training_rows(rows)
    batches = [
        context.cut(tuple(array[start : start + _CALIBRATION_BATCH] for array in inputs))
        for start in range(0, len(inputs[0]), _CALIBRATION_BATCH)
    ]
    linear_only = not any(node.get_type_name() in ("Convolution", "GroupConvolution") for node in model.get_ops())
    overflow = nncf.OverflowFix.ENABLE if context.target.reduce_range else nncf.OverflowFix.DISABLE
    return nncf.quantize(
        model,
        nncf.Dataset(batches, lambda batch: batch[0] if len(batch) == 1 else list(batch)),
        subset_size=len(batches),
        model_type=nncf.ModelType.TRANSFORMER if linear_only else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps NNCF's progress bars and advice from the user's terminal; its errors still come as exceptions."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield
