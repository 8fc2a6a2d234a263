"""Opening one package of each backend: a file in, a function from numpy rows to numpy outputs out.

Runtimes other than PyTorch are imported when a package of theirs is opened, and only then.
"""

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Program = Callable[[Sequence[Array]], list[Array]]
Report = Callable[[str], None]

# torch releases whose AOTIModelPackageLoader was tried with the arguments below; another one goes by the public loader,
# which imports the compiler (seconds) and is the same otherwise
FAST_LOADER_TORCH = ("2.13.0",)
# the device of this process's models, as torch names it; empty is the CPU
DEVICE_VARIABLE = "EMBERLINE_DEVICE"
# the two files of an OpenVINO model, in the zip that is its package
OPENVINO_GRAPH, OPENVINO_WEIGHTS = "model.xml", "model.bin"


def device() -> torch.device:
    """Where this process's models run."""
    return torch.device(os.environ.get(DEVICE_VARIABLE) or "cpu")


def open_package(backend: str, path: Path, report: Report) -> Program:
    """Opens a package for as many threads as PyTorch is set to.

    Raises:
        KeyError: no such backend. Whatever else the runtime raises is handed on.
    """
    return _OPENERS[backend](path, report)


def outputs_of(answer: Any) -> list[torch.Tensor]:
    """All tensors of a module's answer, in the order in which exported programs give them."""
    if isinstance(answer, torch.Tensor):
        return [answer]
    inner = answer.values() if isinstance(answer, Mapping) else answer
    return [tensor for one in inner for tensor in outputs_of(one)]


def as_program(module: Callable[..., Any], place: torch.device | None = None) -> Program:
    """A module of PyTorch, or an exported program's, in the form of the packages.

    Args:
        place: where the module is; None is the CPU.
    """
    where = place or torch.device("cpu")

    def run(arrays: Sequence[Array]) -> list[Array]:
        with torch.inference_mode():
            answer = module(*[torch.from_numpy(array).to(where) for array in arrays])
            return [output.cpu().numpy() for output in outputs_of(answer)]

    return run


def _open_aoti(path: Path, report: Report) -> Program:
    release = torch.__version__.partition("+")[0]
    if release in FAST_LOADER_TORCH:
        # private, hence the guard: the public loader is the same object behind two seconds of imports
        single_threaded, runners, device = False, 1, -1
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", single_threaded, runners, device)  # noqa: SLF001
    else:
        report(f"torch {release} is not among {', '.join(FAST_LOADER_TORCH)}: loading by way of its compiler, slower")
        from torch._inductor import aoti_load_package  # what the guard above spares

        loader = aoti_load_package(str(path)).loader

    def run(arrays: Sequence[Array]) -> list[Array]:
        outputs = loader.boxed_run([torch.from_numpy(array) for array in arrays])
        return [output.numpy() for output in outputs]

    return run


def _open_aoti_cuda(path: Path, _report: Report) -> Program:
    """A package for this process's GPU; answers come back to the CPU, which waits for them."""
    from torch._inductor import aoti_load_package

    place = device()
    package = aoti_load_package(str(path), device_index=place.index or 0)

    def run(arrays: Sequence[Array]) -> list[Array]:
        outputs = package.loader.boxed_run([torch.from_numpy(array).to(place) for array in arrays])
        return [output.cpu().numpy() for output in outputs]

    return run


def _open_onnx(path: Path, _report: Report) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(arrays: Sequence[Array]) -> list[Array]:
        return list(session.run(None, dict(zip(names, arrays, strict=True))))

    return run


def _open_openvino(path: Path, _report: Report) -> Program:
    compiled = compile_openvino(path, torch.get_num_threads())
    outputs = range(len(compiled.outputs))

    def run(arrays: Sequence[Array]) -> list[Array]:
        answer = compiled(list(arrays), share_inputs=True)
        return [np.asarray(answer[position]) for position in outputs]

    return run


def compile_openvino(path: Path, threads: int) -> Any:
    """An OpenVINO package compiled for this CPU; what is not int8 stays in 32 bits, whatever the CPU offers."""
    import openvino

    with zipfile.ZipFile(path) as package:
        graph, weights = package.read(OPENVINO_GRAPH), package.read(OPENVINO_WEIGHTS)
    core = openvino.Core()
    model = core.read_model(graph, openvino.Tensor(np.frombuffer(weights, np.uint8)))
    wanted = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(model, "CPU", wanted)


def _open_exported(path: Path, _report: Report) -> Program:
    """The interpreted program: slower than any other, at home on any CPU, and the one that a GPU can take."""
    program, place = torch.export.load(path), device()
    if place.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, place)
    return as_program(program.module(), place)


_OPENERS: dict[str, Callable[[Path, Report], Program]] = {
    "aoti": _open_aoti,
    "aoti-cuda": _open_aoti_cuda,
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "exported": _open_exported,
}
