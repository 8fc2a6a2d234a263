"""The process in which candidates are timed: packages by the loader that serving uses, and no compiler imported.

Run as `python -m emberline.measure.worker JOB RESULT`, both JSON. Rounds are interleaved: every round times each
candidate once, in an order that rotates, so that a change of the machine's speed meets all of them alike.

Where a package takes texts of any length, all are timed at the lengths of the rows: a round is then several batches,
its time that of one on average. Packages pad a batch as the loader does, modules get it as long as its longest text.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emberline import assets
from emberline.measure import modules
from emberline.measure.batches import Batch, batches_of, longest_of, unpadded
from emberline.measure.memory import peak_mb
from emberline.models import quality
from emberline.recipe import Task

Program = Callable[[Batch], Sequence[NDArray[Any]]]

_SAMPLE_MS = 4.0  # of calls behind one sample: a shorter one would time the clock and the scheduler
_WARM_UP_CALLS = 5
_WARM_UP_S = 1.0  # slow candidates are warm after fewer calls
_MOST_CALLS = 500
_FEWEST_ROUNDS = 7


@dataclass(frozen=True)
class Chosen:
    """A candidate before it is opened; `open` makes it a program in this process."""

    name: str
    package: dict[str, Any]
    skipped: tuple[str, ...]
    rows: Batch
    open: Callable[[], Program]
    is_module: bool = False

    def batches(self, size: int, texts: Sequence[int]) -> list[Batch]:
        """What it is timed on; `texts` are the positions of inputs whose length is the data's."""
        found = batches_of(self.rows, size, texts)
        return [unpadded(batch, texts) for batch in found] if self.is_module else found


def main(job_path: Path, result_path: Path) -> None:
    job = json.loads(job_path.read_bytes())
    packages = assets.handler_module("ember_packages")
    packages.set_threads(job["threads"])
    rows, labels = _rows(job)
    texts = _texts(job)
    # probes and peaks of memory come first: they fork, which is safe only before a runtime has threads of its own
    chosen = [_choose(one, rows, job) for one in job["candidates"]]
    largest = max(job["batch_sizes"], default=1)
    peaks = [
        peak_mb(one.open, longest_of(one.batches(largest, texts), texts)) if job["memory"] else None for one in chosen
    ]
    programs = [one.open() for one in chosen]
    result: dict[str, Any] = {
        one.name: {"package": one.package, "skipped": one.skipped, "timings": [], "memory_mb": peak}
        for one, peak in zip(chosen, peaks, strict=True)
    }
    for batch_size in job["batch_sizes"]:
        batches = [one.batches(batch_size, texts) for one in chosen]
        timings = time_interleaved(programs, batches, job["rounds"], job["budget_s"])
        for one, timing in zip(chosen, timings, strict=True):
            result[one.name]["timings"].append({"batch": batch_size, **timing})
        print(f"timed {len(timings[0]['wall_ms'])} rounds at batch {batch_size}", flush=True)
    if labels is not None:
        for one, program in zip(chosen, programs, strict=True):
            result[one.name]["correct"] = score(program, one.rows, labels, job["task"])
    result_path.write_text(json.dumps(result), encoding="utf-8")


def time_interleaved(
    candidates: list[Program], batches: list[list[Batch]], rounds: int, budget_s: float
) -> list[dict[str, list[float]]]:
    """Wall and process CPU milliseconds of one call, a number a round, candidate by candidate.

    Args:
        batches: of each candidate; a round goes through all of them, and its number is their mean.
        rounds: as many, or fewer (but never below 7) where they would take longer than `budget_s`.
    """
    once_ms = [_warm_up(model, some) for model, some in zip(candidates, batches, strict=True)]
    calls = [int(min(max(1, round(_SAMPLE_MS / ms)), _MOST_CALLS)) for ms in once_ms]
    round_s = sum(ms * count for ms, count in zip(once_ms, calls, strict=True)) / 1e3
    rounds = min(rounds, max(_FEWEST_ROUNDS, int(budget_s / round_s)))
    timings: list[dict[str, list[float]]] = [{"wall_ms": [], "cpu_ms": []} for _ in candidates]
    for turn in range(rounds):
        for offset in range(len(candidates)):
            which = (turn + offset) % len(candidates)
            model, some, repeat = candidates[which], batches[which], calls[which]
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                for batch in some:
                    model(batch)
            timings[which]["cpu_ms"].append((time.process_time() - cpu) * 1e3 / (repeat * len(some)))
            timings[which]["wall_ms"].append((time.perf_counter() - wall) * 1e3 / (repeat * len(some)))
    return timings


def score(model: Program, inputs: Batch, labels: NDArray[Any], task: Task, batch_size: int = 64) -> list[float]:
    """How good the first output is for each row, 0 to 1, as `emberline.models.quality` has it."""
    scores: list[float] = []
    for start in range(0, len(labels), batch_size):
        outputs = model(tuple(np.array(array[start : start + batch_size]) for array in inputs))[0]
        scores.extend(quality.of_rows(task, outputs, np.array(labels[start : start + batch_size])).tolist())
    return scores


def _warm_up(model: Program, batches: list[Batch]) -> float:
    """Milliseconds of a call of each batch once it is warm."""
    begin = time.perf_counter()
    for _ in range(_WARM_UP_CALLS):
        for batch in batches:
            model(batch)
        if time.perf_counter() - begin > _WARM_UP_S:
            break
    begin = time.perf_counter()
    for batch in batches:
        model(batch)
    return max((time.perf_counter() - begin) * 1e3, 1e-3)


def _choose(one: dict[str, Any], rows: Batch | None, job: dict[str, Any]) -> Chosen:
    if "module" in one:
        return _choose_module(one, _rows_for_modules(job) if rows is None else rows)
    packages, folder, description = assets.handler_module("ember_packages"), Path(one["folder"]), one["description"]
    package, skipped = packages.choose(folder, description)
    say = _report(one["name"])
    for text in skipped:
        say(f"passed over {text}")
    own = tuple(array[np.newaxis] for array in packages.probe_row(folder, description))
    return Chosen(
        one["name"],
        dict(package),
        skipped,
        own if rows is None else rows,
        lambda: packages.open_chosen(folder, description, package, skipped, say),
    )


def _choose_module(one: dict[str, Any], rows: Batch) -> Chosen:
    described = {"backend": "compiled" if one["compiled"] else "eager", "precision": "-", "size_bytes": 0}

    def open_module() -> Program:
        module = modules.build(one["module"], Path(one["search"]))
        size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
        described.update(precision=modules.dtype(module), size_bytes=size)  # known once it is made
        return modules.program(module, compiled=one["compiled"])

    return Chosen(one["name"], described, (), rows, open_module, is_module=True)


def _rows(job: dict[str, Any]) -> tuple[Batch | None, NDArray[Any] | None]:
    """Prepared rows and labels from the job's folder; without one each artifact takes its own probe, without a label.

    Rows stay on disk until they are used: a fork would count those in memory as a candidate's.
    """
    if job["rows"] is None:
        return None, None
    folder = Path(job["rows"])
    labels = folder / "labels.npy"
    inputs = tuple(np.load(path, mmap_mode="r") for path in sorted(folder.glob("input*.npy")))
    return inputs, np.load(labels, mmap_mode="r") if labels.is_file() else None


def _rows_for_modules(job: dict[str, Any]) -> Batch:
    """What plain modules are timed on: the probe of the first artifact, since they have none of their own."""
    packages = assets.handler_module("ember_packages")
    first = next(one for one in job["candidates"] if "folder" in one)
    return tuple(array[np.newaxis] for array in packages.probe_row(Path(first["folder"]), first["description"]))


def _texts(job: dict[str, Any]) -> list[int]:
    """Positions of the inputs whose number of tokens is free in some package."""
    described = [one["description"] for one in job["candidates"] if "description" in one]
    free = {name for one in described for package in one["packages"] for name in package.get("tokens") or {}}
    specs = described[0]["preprocessing"]["inputs"] if described else []
    return [position for position, spec in enumerate(specs) if spec["name"] in free]


def _report(name: str) -> Callable[[str], None]:
    return lambda text: print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
