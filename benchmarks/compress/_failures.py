"""Four failures that other stacks let through in silence, made on purpose; each told as caught or not.

    python benchmarks/compress/_failures.py FOLDER SCENARIO [without]

`without` takes the guard away first, by replacing the function that is it, in this process alone.
"""

import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emberline import assets
from emberline.compress import agreement
from emberline.compress.context import Context
from emberline.compress.stages import export as exporting
from emberline.compress.stages.quantize import quantize
from emberline.compress.state import State
from emberline.compress.target import Target, this_machine
from emberline.errors import StageFailed
from emberline.recipe import Compress, Export, Quantize, Recipe, parse_model
from emberline.runlog import RunLog

loader = assets.handler_module("ember_packages")
backends = assets.handler_module("ember_backends")

_RECIPE = {
    "run": "failures",
    "model": {"factory": "torch.nn:Identity"},
    "data": {"source": "emberline.data.digits:digits"},
    "preprocessing": {"inputs": [{"name": "pixels", "shape": [8, 8]}], "steps": [{"op": "reshape", "shape": [64]}]},
    "compress": {
        "batch_sizes": [1, 7],
        "artifacts": {"fp32": {"stages": [{"stage": "export", "backends": ["aoti"], "max_batch": 8}]}},
    },
}
_EXPORT = Export(stage="export", backends=("aoti",), max_batch=8)


class SaturatesWithoutVnni(nn.Module):
    """Large weights of one sign: two neighbouring products of 8 bits each leave 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)
        with torch.no_grad():
            self.layer.weight.copy_(0.9 + 0.1 * torch.rand(10, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layer(x)
        return answer


def context(folder: Path, target: Target) -> Context:
    recipe = parse_model(Recipe, _RECIPE, Path("benchmark"))
    settings = parse_model(Compress, _RECIPE["compress"], Path("benchmark"))  # type: ignore[arg-type]
    made = Context(recipe, settings, None, target, ("aoti",), RunLog(quiet=True), max_batch=8)
    made.scratch = folder / "package"
    return made


def fp32_fallback(folder: Path, *, without: bool) -> tuple[bool, str]:
    """A converter that leaves every layer in floating point and calls the result int8."""
    if without:
        exporting.kernels.require_kernels = lambda *_args, **_kwargs: None
    where = context(folder, this_machine())
    state = quantize(State(SaturatesWithoutVnni().eval()), Quantize(stage="quantize", calibration_rows=64), where)
    silent = replace(state, quantized=exporting.trace(state.model, where, stage="export"))
    return refused(lambda: exporting.export(silent, _EXPORT, where))


def no_vnni(folder: Path, *, without: bool) -> tuple[bool, str]:
    """A package calibrated to 8 bits, as on a CPU with VNNI, loaded where there is none."""
    where = context(folder, replace(this_machine(), vnni="avx512_vnni"))
    state = quantize(State(SaturatesWithoutVnni().eval()), Quantize(stage="quantize", calibration_rows=64), where)
    agreement_of, exporting.require_agreement = (
        exporting.require_agreement,
        lambda *_args: 0.0,
    )  # as that CPU would find
    exported = exporting.export(state, _EXPORT, where)
    exporting.require_agreement = agreement_of
    if without:
        loader.unfit = lambda *_args: None
        loader.probe_apart = lambda *_args: None
    return passed_over(where, exported, {})


def wrong_batch(folder: Path, *, without: bool) -> tuple[bool, str]:
    """A package that is right for the one row of its example and wrong for a batch, as reshaped ONNX files were."""
    if without:
        agreement.sizes_served = lambda *_args: [1]
    where = context(folder, this_machine())
    program = exporting.trace(WrongFromFiveRowsOn().eval(), where, stage="export")
    where.scratch.mkdir(parents=True)
    package = exporting._interpreted(program, where.scratch, 8)  # noqa: SLF001
    state = State(nn.Flatten().eval())
    return refused(lambda: agreement.require_agreement(state, package, where.scratch, where))


class WrongFromFiveRowsOn(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) * (1 + x.shape[0] // 5)


def isa_or_version(folder: Path, *, without: bool) -> tuple[bool, str]:
    """A package of another torch, then one with an instruction that this CPU does not have."""
    where = context(folder, this_machine())
    exported = exporting.export(State(SaturatesWithoutVnni().eval()), _EXPORT, where)
    if without:
        loader.unfit = lambda *_args: None
        loader.probe_apart = lambda *_args: None
    version, said = passed_over(where, exported, {"torch": "2.4.0"})
    spoil(where.scratch / exported.packages[0].file)
    missing, more = passed_over(where, exported, {})
    return version and missing, f"{said}; {more}"


def refused(make: Callable[[], Any]) -> tuple[bool, str]:
    try:
        make()
    except StageFailed as failure:
        return True, failure.fact
    return False, "an artifact was made"


def passed_over(where: Context, state: State, edited: dict[str, Any]) -> tuple[bool, str]:
    """Whether the loader went to the next package of the chain, and said so; the loaded one answers a batch."""
    packages = [package.model_dump(mode="json") for package in state.packages]
    packages[0].update(edited)
    described = {"packages": packages, "preprocessing": where.recipe.preprocessing.model_dump(mode="json")}
    said: list[str] = []
    model = loader.load(where.scratch, described, report=said.append, threads=1)
    (got,) = model((where.validation[0][0][:7],))
    expected = state.model(torch.from_numpy(where.validation[0][0][:7])).detach().numpy()
    error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    fell = model.package["backend"] == "exported" and any(line.startswith("passed over") for line in said)
    return fell, f"{said[0]} (relative error of what serves: {error:.3g})"


def spoil(package: Path) -> None:
    """Fills the machine code with `ud2`, which is what an instruction looks like that a CPU does not know."""
    import struct

    damaged = package.with_suffix(".damaged")
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(damaged, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            content = bytearray(old.read(entry))
            if entry.filename.endswith(".so"):
                (sections,) = struct.unpack_from("<Q", content, 40)
                size, count, names_at = struct.unpack_from("<HHH", content, 58)
                headers = [struct.unpack_from("<IIQQQQ", content, sections + i * size) for i in range(count)]
                for name, _, _, _, offset, length in headers:
                    if content[headers[names_at][4] + name :][:6] == b".text\0":
                        content[offset : offset + length] = (b"\x0f\x0b" * length)[:length]
            new.writestr(zipfile.ZipInfo(entry.filename), bytes(content))
    damaged.replace(package)


SCENARIOS = {one.__name__: one for one in (fp32_fallback, no_vnni, wrong_batch, isa_or_version)}

if __name__ == "__main__":
    torch.set_num_threads(1)
    work = Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    caught, text = SCENARIOS[sys.argv[2]](work, without="without" in sys.argv[3:])
    print(json.dumps({"caught": caught, "said": text}))
