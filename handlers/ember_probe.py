"""Asks a package the artifact's probe, here or in a process of its own, and tells why it cannot be used.

A missing instruction or a corrupted file then kills that process and not this one. Run as a script it reads such a
question from standard input, probes one package and prints the reason, or null.
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
from ember_backends import Program, open_package
from ember_text import cut, free_tokens
from numpy.typing import NDArray

Array = NDArray[Any]

PROBE = "probe.json"
# a probe hangs when it has computed nothing for so long, or has not answered at all: on a crowded machine a healthy one
# may take minutes, and must not be taken for broken
PROBE_STALL_S = 20.0
PROBE_TIMEOUT_S = 300.0


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
            env={**os.environ, "TMPDIR": scratch},
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


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    sys.stdout.buffer.write(_describe_probe(Path(asked["folder"]), asked["described"], asked["package"]))
