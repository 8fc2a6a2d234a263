"""The one loader of an artifact's packages, along their fallback chain.

    load(folder, artifact.json) -> LoadedModel        numpy rows in, numpy rows out

For each package of the chain, the preferred one first: is it made for this CPU and this torch; does it answer the probe
in a process of its own (a missing instruction kills that process, not this one). Then it is loaded here. Whatever is
passed over is reported with its reason. Nothing on the way imports torch's compiler, so a worker starts in the
time that torch itself takes.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ember_backends import Program, device
from ember_patience import clock
from ember_probe import open_program, probe_apart, probe_row, read_json
from ember_text import cut, free_tokens
from numpy.typing import NDArray

Array = NDArray[Any]

DESCRIPTION = "artifact.json"
THREADS_VARIABLE = "EMBERLINE_THREADS"
MEMORY_SHARE_VARIABLE = "EMBERLINE_DEVICE_MEMORY_SHARE"
# the flags of int8 dot products that oneDNN leaves alone when it is told to use no more than an older CPU has
ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_HIDDEN_BY_ISA = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2"), ("avx_vnni", "avx512_vnni")),
    **dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2"), ("avx512_vnni",)),
    "AVX512_CORE": ("avx_vnni", "avx512_vnni"),
}


class NoUsablePackage(Exception):
    """No package of the chain can run here; carries why, package by package."""

    def __init__(self, folder: Path, skipped: Sequence[str]) -> None:
        self.skipped = tuple(skipped)
        reasons = "; ".join(skipped) or "the artifact has no packages"
        super().__init__(f"{folder}: no package can run on this machine: {reasons}")


class LoadedModel:
    """A package ready to answer.

    Attributes:
        package: its entry of `artifact.json`.
        skipped: one sentence for each package of the chain that was passed over.
        inputs: dtype and row shape of each input, taken from the probe.
        tokens: of each input the least tokens of a batch, where the package takes texts as long as a batch's longest.
    """

    def __init__(
        self,
        program: Program,
        package: Mapping[str, Any],
        inputs: tuple[Array, ...],
        skipped: tuple[str, ...],
        tokens: Sequence[int | None] = (),
    ) -> None:
        self._program = program
        self.package = dict(package)
        self.skipped = skipped
        self.inputs = tuple((row.dtype, row.shape) for row in inputs)
        self.tokens = tuple(tokens) or (None,) * len(inputs)

    def __call__(self, batch: tuple[Array, ...]) -> tuple[Array, ...]:
        """Raw outputs of a batch, one array an output; a batch above the package's `max_batch` goes in pieces.

        A compiled package reads whatever memory it is given, so dtype and shape are checked here. Texts come padded to
        the length the model takes at most; what is padding in all rows of a piece is left out where the package allows.

        Raises:
            ValueError: no rows, or an input of another dtype or shape than the model takes.
            TooLong: the server would not wait for the next piece.
        """
        rows = self._check(batch)
        limit = int(self.package["max_batch"])
        pieces = []
        for start in range(0, rows, limit):
            if start:
                clock.check_computing()
            pieces.append(self._program(cut([array[start : start + limit] for array in batch], self.tokens)))
        if len(pieces) == 1:
            return tuple(pieces[0])
        return tuple(np.concatenate(outputs) for outputs in zip(*pieces, strict=True))

    def _check(self, batch: tuple[Array, ...]) -> int:
        if len(batch) != len(self.inputs):
            raise ValueError(f"{len(batch)} inputs; {len(self.inputs)} are required")
        rows = len(batch[0])
        for position, (array, (dtype, shape)) in enumerate(zip(batch, self.inputs, strict=True)):
            if array.dtype != dtype or array.shape[1:] != shape or len(array) != rows:
                got = f"{array.dtype}{list(array.shape)}"
                raise ValueError(f"input {position} is {got}; {dtype}{[rows, *shape]} is required")
        if rows == 0:
            raise ValueError("a batch of 0 rows; at least 1 is required")
        return rows


def load(
    folder: Path,
    description: Mapping[str, Any] | None = None,
    *,
    report: Callable[[str], None],
    threads: int | None = None,
) -> LoadedModel:
    """The first package of the chain that this machine can run.

    Args:
        folder: where the packages and `probe.json` are.
        description: the content of `artifact.json`; None reads it from `folder`.
        report: is told of each package passed over and of what was loaded.
        threads: threads per batch, for the whole process; None takes `EMBERLINE_THREADS`, else leaves torch's default.

    Raises:
        NoUsablePackage: all were passed over.
    """
    described = read_json(folder / DESCRIPTION) if description is None else description
    set_threads(threads)
    begin = time.monotonic()
    package, skipped = choose(folder, described)
    for text in skipped:
        report(f"passed over {text}")
    model = open_chosen(folder, described, package, skipped, report)
    took = time.monotonic() - begin
    report(f"loaded {package['file']} ({package['backend']}, {package['precision']}) in {took:.2f} s")
    return model


def choose(folder: Path, described: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The first package of the chain that fits this machine and answers its probe; and why those before it do not.

    Raises:
        NoUsablePackage: all were passed over.
    """
    skipped: list[str] = []
    for package in described["packages"]:
        reason = unfit(folder, package) or probe_apart(folder, described, package)
        if reason is None:
            return package, tuple(skipped)
        skipped.append(f"{package['file']}: {reason}")
    raise NoUsablePackage(folder, skipped)


def open_chosen(
    folder: Path,
    described: Mapping[str, Any],
    package: Mapping[str, Any],
    skipped: tuple[str, ...],
    report: Callable[[str], None],
) -> LoadedModel:
    """Opens, in this process, the package that `choose` found."""
    limit_memory()
    row, tokens = probe_row(folder, described), free_tokens(described, package)
    return LoadedModel(open_program(folder, package, report), package, row, skipped, tokens)


def set_threads(threads: int | None) -> None:
    """Threads per batch for the whole process, from the argument or from `EMBERLINE_THREADS`."""
    wanted = threads or int(os.environ.get(THREADS_VARIABLE) or 0)
    if wanted:
        torch.set_num_threads(wanted)


def limit_memory() -> None:
    """Holds this process to its share of the GPU's memory, where it has one of either."""
    share = os.environ.get(MEMORY_SHARE_VARIABLE)
    if share and device().type == "cuda":
        torch.cuda.set_per_process_memory_fraction(float(share), device())


def unfit(folder: Path, package: Mapping[str, Any]) -> str | None:
    """Why a package must not be opened here, as far as its metadata tells; None when nothing speaks against it."""
    if not (folder / package["file"]).is_file():
        return "the file is missing"
    if package["backend"] == "aoti-cuda":
        return _unfit_gpu(package)
    if device().type != "cpu" and package["backend"] != "exported":
        return f"is made for the CPU; this worker's model is on {device()}"
    missing = sorted(set(package.get("needs", ())) - cpu_flags())
    if missing:
        return f"this CPU lacks {', '.join(missing)}"
    if package["backend"] == "aoti" and _minor(package.get("torch", "")) != _minor(torch.__version__):
        return f"made with torch {package.get('torch') or 'unknown'}; this is {torch.__version__}"
    return None


def _unfit_gpu(package: Mapping[str, Any]) -> str | None:
    """A package for a GPU: this worker's model has to be on one of the very compute capability, with the same torch."""
    wanted = ", ".join(package.get("needs", ()))
    if device().type != "cuda":
        return f"is made for a GPU of {wanted}; this worker's model is on the CPU"
    got = "sm_{}{}".format(*torch.cuda.get_device_capability(device()))
    if got != wanted:
        return f"is made for a GPU of {wanted}; this one is {got}"
    if _minor(package.get("torch", "")) != _minor(torch.__version__):
        return f"made with torch {package.get('torch') or 'unknown'}; this is {torch.__version__}"
    return None


def cpu_flags() -> frozenset[str]:
    """The CPU's flags as `/proc/cpuinfo` names them, less the int8 ones that oneDNN is told not to use."""
    level = next((os.environ[name] for name in ISA_VARIABLES if os.environ.get(name)), "")
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("flags"):
                return visible_flags(line.partition(":")[2].split(), level)
    return frozenset()


def visible_flags(flags: Sequence[str], level: str) -> frozenset[str]:
    """Flags less those that oneDNN leaves alone at an ISA level such as AVX2; an empty or unknown level hides none."""
    return frozenset(flags) - frozenset(_HIDDEN_BY_ISA.get(level.upper(), ()))


def _minor(version: str) -> str:
    return ".".join(version.partition("+")[0].split(".")[:2])
