"""Starting the measuring process and reading what it found."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emberline import assets, process
from emberline.errors import StageFailed
from emberline.measure.timing import Timing
from emberline.recipe import Task
from emberline.runlog import RunLog

ROUNDS = 40
BUDGET_S = 60.0  # for the rounds of one batch size; slow candidates get fewer rounds, never below 7
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Candidate:
    """What is to be measured: a folder with packages and a probe, described as in `artifact.json`."""

    name: str
    folder: Path
    description: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "folder": str(self.folder.resolve()), "description": self.description}

    def size_bytes(self, package: dict[str, Any]) -> int:
        """Of the file that ran."""
        return (self.folder / str(package["file"])).stat().st_size


@dataclass(frozen=True)
class ModuleCandidate:
    """A plain module to be measured: the function that makes it, found from the folder `search` or installed.

    Attributes:
        compiled: whether torch.compile runs it.
    """

    name: str
    reference: str
    search: Path
    compiled: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "module": self.reference,
            "search": str(self.search.resolve()),
            "compiled": self.compiled,
        }

    def size_bytes(self, package: dict[str, Any]) -> int:
        """Of its parameters and buffers, since there is no file."""
        return int(package["size_bytes"])


@dataclass(frozen=True)
class Measured:
    """One candidate's result.

    Attributes:
        package: the entry of the chain that ran.
        skipped: why others of the chain did not.
        size_bytes: of the package that ran.
        memory_mb: peak of a process that loads it and answers the largest batch size; None where it was not asked.
        correct: 1 or 0 for each row given, of shape (rows,), between them where an answer can be right in part; None
            without rows.
    """

    name: str
    package: dict[str, Any]
    skipped: tuple[str, ...]
    size_bytes: int
    timings: tuple[Timing, ...]
    correct: NDArray[np.float64] | None
    memory_mb: float | None = None

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Measured":
        return cls(
            name=raw["name"],
            package=raw["package"],
            skipped=tuple(raw["skipped"]),
            size_bytes=raw["size_bytes"],
            timings=tuple(Timing.from_json(timing) for timing in raw["timings"]),
            correct=None if raw["correct"] is None else np.asarray(raw["correct"], np.float64),
            memory_mb=raw["memory_mb"],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "package": self.package,
            "skipped": list(self.skipped),
            "size_bytes": self.size_bytes,
            "timings": [timing.to_json() for timing in self.timings],
            "correct": None if self.correct is None else self.correct.tolist(),
            "memory_mb": self.memory_mb,
        }

    def timing(self, batch: int) -> Timing:
        return next(timing for timing in self.timings if timing.batch == batch)


def measure(
    candidates: Sequence[Candidate | ModuleCandidate],
    batch_sizes: Sequence[int],
    *,
    threads: int = 1,
    rounds: int = ROUNDS,
    budget_s: float = BUDGET_S,
    device: str = "cpu",
    memory: bool = True,
    inputs: tuple[NDArray[Any], ...] | None = None,
    labels: NDArray[Any] | None = None,
    task: Task = "classification",
    log: RunLog | None = None,
) -> dict[str, Measured]:
    """Times all candidates in interleaved rounds, in a process of their own; scores them where labels are given.

    Args:
        inputs: prepared rows, one array an input; None times each artifact on its own probe, repeated, and modules on
            the first artifact's.
        budget_s: seconds for the rounds of one batch size.
        device: where packages run, `cpu` or `cuda`; modules run on the CPU.
        task: what the labels are of.
        memory: whether peaks of memory are taken too, each in a forked process.

    Raises:
        StageFailed: the process failed, with the last lines it printed.
    """
    with tempfile.TemporaryDirectory(prefix="ember-measure-") as scratch:
        folder = Path(scratch)
        rows = None if inputs is None else _written(folder / "rows", inputs, labels)
        job = {
            "candidates": [one.to_json() for one in candidates],
            "batch_sizes": list(batch_sizes),
            "threads": threads,
            "rounds": rounds,
            "budget_s": budget_s,
            "device": device,
            "memory": memory,
            "task": task,
            "rows": str(rows) if rows else None,
        }
        raw = _run(folder, job, threads, log)
    return {one.name: _measured(one, raw[one.name]) for one in candidates}


def _written(folder: Path, inputs: tuple[NDArray[Any], ...], labels: NDArray[Any] | None) -> Path:
    """The folder with a file for each array, which the measuring process reads as far as it needs them."""
    folder.mkdir()
    for number, array in enumerate(inputs):
        np.save(folder / f"input{number:03}.npy", array)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    return folder


def _place(device: str) -> dict[str, str]:
    """As the loader of packages is told; nothing for the CPU."""
    return {assets.handler_module("ember_backends").DEVICE_VARIABLE: "cuda:0"} if device == "cuda" else {}


def _run(folder: Path, job: dict[str, Any], threads: int, log: RunLog | None) -> dict[str, Any]:
    job_path, result_path, output = folder / "job.json", folder / "result.json", folder / "output.log"
    job_path.write_text(json.dumps(job), encoding="utf-8")
    child = process.start(
        [sys.executable, "-m", "emberline.measure.worker", job_path, result_path],
        name="measure",
        log=output,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "TMPDIR": str(folder), **_place(job["device"])},
    )
    try:
        code = child.wait(_TIMEOUT_S)
    finally:
        child.stop()
    printed = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if code != 0 or not result_path.is_file():
        said = " | ".join(line for line in printed[-3:] if not line.startswith(" "))  # less the frames of a traceback
        raise StageFailed("measure", f"the measuring process ended with code {code}: {said}")
    if log is not None:
        for line in printed:
            if "passed over" in line:
                log.say(f"measure: {line}")
    result: dict[str, Any] = json.loads(result_path.read_bytes())
    return result


def _measured(one: Candidate | ModuleCandidate, raw: dict[str, Any]) -> Measured:
    sized = {**raw, "name": one.name, "size_bytes": one.size_bytes(raw["package"])}
    return Measured.from_json({"correct": None, **sized})
