"""The CPU that packages are made for: portable x86-64-v3, and int8 arithmetic as this machine has it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

MARCH = "x86-64-v3"
SIMD_BITS = 256
# what a compiler may use under -march=x86-64-v3, as /proc/cpuinfo names it (lzcnt is called abm there)
V3_FLAGS = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
VNNI_FLAGS = ("avx512_vnni", "avx_vnni")


@dataclass(frozen=True)
class Target:
    """What a package may use, and therefore needs.

    Attributes:
        vnni: the CPU flag of int8 dot products, or None. Without them two products are added in 16 bits, which
            saturates in silence; so activations are then calibrated to 7 bits (`reduce_range`).
        compiler: whether a C++ compiler is there, without which nothing can be compiled ahead of time.
    """

    vnni: str | None
    compiler: bool

    @property
    def reduce_range(self) -> bool:
        return self.vnni is None

    def needs(self, precision: str) -> tuple[str, ...]:
        """CPU flags of a compiled package; int8 calibrated to 8 bits would be wrong on a CPU without `vnni`."""
        return (*V3_FLAGS, self.vnni) if precision == "int8" and self.vnni else V3_FLAGS


def this_machine() -> Target:
    flags = _cpu_flags()
    return Target(
        vnni=next((flag for flag in VNNI_FLAGS if flag in flags), None),
        compiler=shutil.which("g++") is not None,
    )


def _cpu_flags() -> frozenset[str]:
    """As the packages' loader reads them; asked here without it, since it imports torch."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())
