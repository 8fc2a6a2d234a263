"""The CPU that packages are made for: portable x86-64-v3, and int8 arithmetic as this machine has it."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from emberline import assets
from emberline.recipe import ExportBackend

MARCH = "x86-64-v3"
SIMD_BITS = 256
# what a compiler may use under -march=x86-64-v3, as /proc/cpuinfo names it (lzcnt is called abm there)
V3_FLAGS = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
VNNI_FLAGS = ("avx512_vnni", "avx_vnni")
# further instructions that a compiler may use under -march=native: a package made so needs those this CPU has
NATIVE_FLAGS = (
    "adx", "aes", "amx_bf16", "amx_int8", "amx_tile", "avx512_bf16", "avx512_bitalg", "avx512_fp16", "avx512_vbmi2",
    "avx512_vnni", "avx512_vpopcntdq", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512ifma", "avx512vbmi",
    "avx512vl", "avx_vnni", "clflushopt", "clzero", "gfni", "pclmulqdq", "rdseed", "sha_ni", "sse4a", "vaes",
    "vpclmulqdq", "xsavec",
)  # fmt: skip
# the one that changes what is compiled: vectors twice as wide
WIDE_FLAG = "avx512f"
ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
# what an optional backend imports while a package is made
NEEDED_MODULES: dict[ExportBackend, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino", "nncf"),
}


@dataclass(frozen=True)
class Target:
    """What a package may use, and therefore needs.

    Attributes:
        vnni: the CPU flag of int8 dot products, or None. Without them two products are added in 16 bits, which
            saturates in silence; so activations are then calibrated to 7 bits (`reduce_range`).
        compiler: whether a C++ compiler is there, without which nothing can be compiled ahead of time.
        native: this CPU's flags beyond x86-64-v3 that `-march=native` may use.
        installed: optional backends whose packages are installed.
        device: where the packages will run.
        capability: compute capability of the GPU they will run on, (9, 0) say; None without one.
    """

    vnni: str | None
    compiler: bool
    native: tuple[str, ...] = ()
    installed: tuple[ExportBackend, ...] = ()
    device: Literal["cpu", "cuda"] = "cpu"
    capability: tuple[int, int] | None = None

    @property
    def reduce_range(self) -> bool:
        return self.vnni is None

    @property
    def wide(self) -> bool:
        """Whether `-march=native` computes with wider vectors than the portable package."""
        return WIDE_FLAG in self.native

    def needs(self, precision: str, *, native: bool = False) -> tuple[str, ...]:
        """CPU flags of a compiled package; int8 calibrated to 8 bits would be wrong on a CPU without `vnni`."""
        flags = (*V3_FLAGS, *(self.native if native else ()))
        return tuple(dict.fromkeys((*flags, *self.needs_of_runtime(precision))))

    def needs_of_runtime(self, precision: str) -> tuple[str, ...]:
        """CPU flags of a package that a runtime with kernels for each CPU loads: only what int8 was calibrated for."""
        return (self.vnni,) if precision == "int8" and self.vnni else ()


def this_machine(
    int8_for: Literal["this-cpu", "any-cpu"] = "this-cpu", device: Literal["cpu", "cuda"] = "cpu"
) -> Target:
    """What can be built here; for `any-cpu` as if the CPU had no VNNI, so that int8 is right without it too."""
    flags = cpu_flags()
    vnni = next((flag for flag in VNNI_FLAGS if flag in flags), None)
    return Target(
        vnni=vnni if int8_for == "this-cpu" else None,
        compiler=shutil.which("g++") is not None,
        native=tuple(flag for flag in NATIVE_FLAGS if flag in flags),
        installed=tuple(name for name, modules in NEEDED_MODULES.items() if all(find_spec(one) for one in modules)),
        device=device,
        capability=_capability() if device == "cuda" else None,
    )


def absent_backends() -> dict[str, str]:
    """Optional backends that are not installed here, each with the line that installs it."""
    return {
        name: f"pip install 'emberline[{name}]'"
        for name, modules in NEEDED_MODULES.items()
        if not all(find_spec(one) for one in modules)
    }


def _capability() -> tuple[int, int] | None:
    """Of the first GPU, as its driver tells; asked here without torch."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    return parse_capability(told[0]) if told else None


def parse_capability(told: str) -> tuple[int, int] | None:
    """`9.0` as (9, 0); None for anything else, a driver's complaint say."""
    major, _, minor = told.strip().partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def cpu_flags() -> frozenset[str]:
    """Of the first processor, as /proc/cpuinfo names them and as the packages' loader sees them.

    The int8 ones that oneDNN is told not to use are left out.
    """
    if any(os.environ.get(name) for name in ISA_VARIABLES):
        loader = assets.handler_module("ember_packages")  # imports torch, so it is asked only where it decides
        limited: frozenset[str] = loader.cpu_flags()
        return limited
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())
