"""AOTInductor: the program compiled to machine code ahead of time, for any x86-64-v3 or for this very CPU."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import torch

from emberline.artifact import Package
from emberline.compress import kernels
from emberline.compress.backends.compiling import compiling
from emberline.compress.context import Context
from emberline.compress.state import State
from emberline.compress.target import MARCH


def compile_package(
    state: State,
    program: torch.export.ExportedProgram,
    folder: Path,
    max_batch: int,
    context: Context,
    *,
    native: bool = False,
) -> Package:
    """Compiles the program of lower precision if there is one, else the float one.

    Args:
        native: for the CPU at hand, with all it can do; such a package needs a CPU that can do as much.
    """
    from torch._inductor import aoti_compile_and_package

    file = f"{state.precision}{'.native' if native else ''}.pt2"
    with compiling(context.settings.threads, native=native):
        aoti_compile_and_package(state.quantized or program, package_path=str(folder / file))
    shrink(folder / file)
    return Package(
        file=file,
        backend="aoti",
        precision=state.precision,
        max_batch=max_batch,
        needs=context.target.needs(state.precision, native=native),
        torch=torch.__version__,
        march="native" if native else MARCH,
        int8_kernels=kernels.count_kernels(folder / file),
    )


def shrink(package: Path) -> None:
    """Takes debugging symbols out of the compiled libraries, and deflates all of the package.

    Symbols are four fifths of a small package; of a large one, whose weights are int8, deflating saves an eighth for a
    tenth of a second of loading. `strip` comes with the linker that just made the library; were it gone, the package
    would only be larger.
    """
    strip = shutil.which("strip")
    work = package.with_name(f"{package.name}.strip")
    rewritten = package.with_name(f"{package.name}.stripped")
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(rewritten, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if strip and entry.filename.endswith(".so"):
                work.write_bytes(content)
                subprocess.run([strip, "--strip-unneeded", work], check=True)
                content = work.read_bytes()
                work.unlink()
            new.writestr(zipfile.ZipInfo(entry.filename), content, zipfile.ZIP_DEFLATED)
    rewritten.replace(package)
