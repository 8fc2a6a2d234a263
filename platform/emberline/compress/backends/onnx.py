"""ONNX Runtime: for machines without a compiler, or beside AOTInductor when the recipe asks for it."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from emberline.artifact import Package
from emberline.compress.context import Context
from emberline.compress.state import State
from emberline.errors import MissingTool, StageFailed

_CALIBRATION_BATCH = 64
_INT8_OPERATORS = (
    "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
)  # fmt: skip


def convert_package(
    state: State, program: torch.export.ExportedProgram, folder: Path, max_batch: int, context: Context
) -> Package:
    """Converts the float program; ONNX Runtime's own quantizers make it int8 where a quantize stage ran.

    Static with calibration rows for nets with convolutions. Nets of linear layers alone (transformers) are quantized as
    they run: with static scales their outliers cost most of the accuracy.

    Raises:
        MissingTool: the extra `onnx` is not installed.
    """
    require_onnx()
    import onnxruntime

    precision = require_known(state, "onnx")
    file, plain = f"{precision}.onnx", folder / "plain.onnx"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter about its own dependencies
        converted = torch.onnx.export(program, dynamo=True, verbose=False)
    if converted is None:
        raise MissingTool("torch.onnx's converter", "no ONNX package can be made", hint="pip install 'emberline[onnx]'")
    converted.save(str(plain))
    if precision == "fp32":
        plain.rename(folder / file)
    elif state.calibration_rows and _has_convolutions(plain):
        _quantize(plain, folder / file, state.calibration_rows, context)
        plain.unlink()
    else:
        _quantize_dynamically(plain, folder / file, context)
        plain.unlink()
    return Package(
        file=file,
        backend="onnx",
        precision=precision,
        max_batch=max_batch,
        needs=context.target.needs_of_runtime(precision),
        torch=torch.__version__,
        march=f"onnxruntime {onnxruntime.__version__}",
        int8_kernels=count_kernels(folder / file, folder),
    )


def require_known(state: State, backend: str) -> Literal["fp32", "int8"]:
    """What a backend with a quantizer of its own makes of a state.

    Raises:
        StageFailed: its precision is one that only AOTInductor makes here.
    """
    if state.precision == "fp32" or state.precision == "int8":  # noqa: PLR1714 - so mypy narrows it
        return state.precision
    raise StageFailed("export", f"{backend} packages are fp32 or int8; this one is to be {state.precision}")


def require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingTool(
            str(error.name), "no ONNX package can be made", hint="pip install 'emberline[onnx]'"
        ) from error


def count_kernels(model: Path, scratch: Path) -> int:
    """Quantized operators left after ONNX Runtime optimised the graph, which is what it will run."""
    import onnx
    import onnxruntime

    optimised = scratch / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.log_severity_level = 3  # it warns that an optimised model is for this machine; it is read and deleted here
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    counted = sum(node.op_type in _INT8_OPERATORS for node in onnx.load(str(optimised)).graph.node)
    optimised.unlink()
    return counted


def _quantize(plain: Path, target: Path, rows: int, context: Context) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = plain.with_suffix(".prepared.onnx")
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(target),
        _calibration(plain, context.cut(context.training_rows(rows)), min(_CALIBRATION_BATCH, context.max_batch)),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=context.target.reduce_range,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    prepared.unlink()


def _has_convolutions(model: Path) -> bool:
    import onnx

    return any(node.op_type == "Conv" for node in onnx.load(str(model), load_external_data=False).graph.node)


def _quantize_dynamically(plain: Path, target: Path, context: Context) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = plain.with_suffix(".prepared.onnx")
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_dynamic(
        str(prepared),
        str(target),
        per_channel=True,
        reduce_range=context.target.reduce_range,
        weight_type=quantization.QuantType.QInt8,
    )
    prepared.unlink()


def _calibration(model: Path, rows: tuple[NDArray[Any], ...], batch: int) -> Any:
    """Calibration rows in the form ONNX Runtime reads them."""
    import onnx
    from onnxruntime import quantization

    names = [entry.name for entry in onnx.load(str(model), load_external_data=False).graph.input]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def __init__(self) -> None:
            self._batches = _batches(names, rows, batch)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._batches, None)

    return Reader()


def _batches(names: list[str], rows: tuple[NDArray[Any], ...], batch: int) -> Iterator[dict[str, NDArray[Any]]]:
    for start in range(0, len(rows[0]), batch):
        pieces = [array[start : start + batch] for array in rows]
        yield dict(zip(names, pieces, strict=True))
