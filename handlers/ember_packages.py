"""The one loader of an artifact's packages, along their fallback chain.

    load(folder, artifact.json) -> LoadedModel        numpy rows in, numpy rows out

For each package of the chain, the preferred one first: is it made for this CPU and this torch; does it answer the probe
in a process of its own (a missing instruction kills that process, not this one). Then it is loaded here. Whatever is
passed over is reported with its reason. Nothing on the way imports torch's compiler, so a worker starts in the
time that torch itself takes.

Run as a script it reads such a question from standard input, probes one package and prints why it cannot be used.
"""

import contextlib
import faulthandler
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ember_backends import Program, device, open_package
from ember_text import longest
from numpy.typing import NDArray

Array = NDArray[Any]

DESCRIPTION = "artifact.json"
PROBE = "probe.json"
THREADS_VARIABLE = "EMBERLINE_THREADS"
MEMORY_SHARE_VARIABLE = "EMBERLINE_DEVICE_MEMORY_SHARE"
# a probe hangs when it has computed nothing for so long, or has not answered at all: on a crowded machine a healthy one
# may take minutes, and must not be taken for broken
PROBE_STALL_S = 20.0
PROBE_TIMEOUT_S = 300.0
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
        """
        rows = self._check(batch)
        limit = int(self.package["max_batch"])
        pieces = [
            self._program(cut([array[start : start + limit] for array in batch], self.tokens))
            for start in range(0, rows, limit)
        ]
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


def free_tokens(described: Mapping[str, Any], package: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Of each input the least tokens of a batch; None where its rows are all of one shape, as in older papers."""
    free = package.get("tokens") or {}
    names = [spec["name"] for spec in described["preprocessing"]["inputs"]]
    return tuple(int(free[name]["least"]) if name in free else None for name in names)


def cut(batch: Sequence[Array], tokens: Sequence[int | None]) -> list[Array]:
    """A batch as a program takes it: without tokens that are padding in all rows, each array in memory of its own."""
    return [
        _owned(array if least is None else array[:, : longest(array, least)])
        for array, least in zip(batch, tokens, strict=True)
    ]


def _owned(array: Array) -> Array:
    """Rows in one contiguous, writable piece of memory, which is what torch takes over without a copy."""
    return np.require(array, requirements=("C", "W"))


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


def open_program(folder: Path, package: Mapping[str, Any], report: Callable[[str], None]) -> Program:
    """Opens one package, unprobed."""
    return open_package(package["backend"], folder / package["file"], report)


def probe_row(folder: Path, described: Mapping[str, Any]) -> tuple[Array, ...]:
    """The probe's instance as the model takes it: one row, no batch dimension."""
    from ember_preprocessing import Preprocessing

    row: tuple[Array, ...] = Preprocessing(described["preprocessing"])(read_json(folder / PROBE)["instance"])
    return row


def probe_here(folder: Path, described: Mapping[str, Any], package: Mapping[str, Any]) -> str | None:
    """Opens a package and asks it the probe, in this process; why the answer is wrong, or None.

    Where the number of tokens is free, it is asked twice: the text as long as it is, and padded to the most.
    """
    probe = read_json(folder / PROBE)
    program = open_program(folder, package, lambda _text: None)
    row, tokens = [array[np.newaxis] for array in probe_row(folder, described)], free_tokens(described, package)
    for free in dict.fromkeys([tokens, (None,) * len(row)]):
        reason = _answers_otherwise(program(cut(row, free)), probe)
        if reason:
            return reason
    return None


def _answers_otherwise(outputs: Sequence[Array], probe: Mapping[str, Any]) -> str | None:
    """What is wrong with a package's outputs of the probe, or None."""
    expected = [probe["expected"], *probe.get("more_expected", ())]
    tolerances = [probe["tolerance"], *probe.get("more_tolerance", ())]
    if len(outputs) != len(expected) and "more_expected" in probe:  # older papers told the first output alone
        return f"answers the probe with {len(outputs)} outputs; {len(expected)} are expected"
    for position, (wanted, tolerance) in enumerate(zip(expected, tolerances, strict=True)):
        reason = _differs(outputs[position], np.asarray(wanted, np.float64), tolerance)
        if reason:
            return reason if position == 0 else f"{reason} (output {position})"
    return None


def _differs(output: Array, expected: Array, tolerance: float) -> str | None:
    got = output.reshape(-1).astype(np.float64)
    if got.shape != expected.shape:
        return f"answers the probe with {got.size} numbers; {expected.size} are expected"
    difference = float(np.abs(got - expected).max()) if np.isfinite(got).all() else float("inf")
    if difference > tolerance:
        return f"answers the probe {difference:.3g} away from what is expected; {tolerance:.3g} is allowed"
    return None


def probe_apart(folder: Path, described: Mapping[str, Any], package: Mapping[str, Any]) -> str | None:
    """The same in a process of its own, so that a missing instruction or a corrupted package cannot end this one.

    A fork costs milliseconds, a fresh interpreter seconds of importing torch. Forking is safe only while no other
    Python thread could hold a lock; a forked probe that hangs anyway is asked again in a fresh interpreter. A process
    that has used a GPU cannot be forked and use it on.
    """
    if threading.active_count() == 1 and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        verdict = _probe_forked(folder, described, package)
        if verdict is not _HANGS:
            return verdict
    return _probe_fresh(folder, described, package)


_HANGS = "the probe hangs"


def _probe_forked(folder: Path, described: Mapping[str, Any], package: Mapping[str, Any]) -> str | None:
    scratch = tempfile.mkdtemp(prefix="ember-probe-")  # a package unpacks itself; a killed child leaves that behind
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _answer_and_exit(folder, described, package, write, scratch)
    os.close(write)
    try:
        content = _read_all(read, child)
        if content is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(read)
        shutil.rmtree(scratch, ignore_errors=True)
    return _HANGS if content is None else _verdict(os.waitstatus_to_exitcode(status), content)


def _answer_and_exit(
    folder: Path, described: Mapping[str, Any], package: Mapping[str, Any], write: int, scratch: str
) -> None:
    """The forked child: one thread, no way back into the parent's program."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()  # a missing instruction is an answer here: no stack of the parent's on its terminal
        os.environ["TMPDIR"] = scratch
        torch.set_num_threads(1)
        os.write(write, _describe_probe(folder, described, package))
        code = 0
    finally:
        os._exit(code)


def _probe_fresh(folder: Path, described: Mapping[str, Any], package: Mapping[str, Any]) -> str | None:
    question = json.dumps({"folder": str(folder.resolve()), "described": dict(described), "package": dict(package)})
    with tempfile.TemporaryDirectory(prefix="ember-probe-") as scratch:
        asked = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": scratch, THREADS_VARIABLE: "1"},
        )
        with asked:
            with contextlib.suppress(BrokenPipeError), asked.stdin as question_pipe:  # type: ignore[union-attr]  # piped above
                question_pipe.write(question.encode())
            content = _read_all(asked.stdout.fileno(), asked.pid)  # type: ignore[union-attr]  # piped above
            if content is None:
                asked.kill()
    return _HANGS if content is None else _verdict(asked.returncode, content)


def _describe_probe(folder: Path, described: Mapping[str, Any], package: Mapping[str, Any]) -> bytes:
    """`probe_here` as bytes; a package that cannot be opened is a reason like any other."""
    try:
        reason = probe_here(folder, described, package)
    except Exception as error:  # noqa: BLE001 - whatever a foreign runtime raises becomes the reported reason
        reason = f"cannot be opened: {' '.join(str(error).split())[:300]}"
    return json.dumps({"reason": reason}).encode()


def _verdict(exit_code: int, content: bytes) -> str | None:
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"the probe died of {signal.Signals(-exit_code).name}"
    if exit_code != 0 or not content:
        return f"the probe ended with exit code {exit_code}"
    reason: str | None = json.loads(content)["reason"]
    return reason


def _read_all(descriptor: int, child: int) -> bytes | None:
    """All bytes until the child closes its side; None when it hangs."""
    begin = moved = time.monotonic()
    content, used = b"", -1
    while time.monotonic() - begin < PROBE_TIMEOUT_S and time.monotonic() - moved < PROBE_STALL_S:
        if select.select([descriptor], [], [], 1.0)[0]:
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return content
            content += piece
        now = _ticks(child)
        if now != used:
            moved, used = time.monotonic(), now
    return None


def _ticks(process: int) -> int:
    """Processor time of a process so far, in the kernel's ticks; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _minor(version: str) -> str:
    return ".".join(version.partition("+")[0].split(".")[:2])


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    set_threads(None)
    sys.stdout.buffer.write(_describe_probe(Path(asked["folder"]), asked["described"], asked["package"]))
