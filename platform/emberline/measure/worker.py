"""The process in which artifacts are timed: packages by the loader that serving uses, and no compiler imported.

Run as `python -m emberline.measure.worker JOB RESULT`, both JSON. Rounds are interleaved: every round times each
candidate once, in an order that rotates, so that a change of the machine's speed meets all of them alike.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emberline import assets

Batch = tuple[NDArray[Any], ...]
Program = Callable[[Batch], tuple[NDArray[Any], ...]]

_SAMPLE_MS = 4.0  # of calls behind one sample: a shorter one would time the clock and the scheduler
_WARM_UP_CALLS = 5
_MOST_CALLS = 500


def main(job_path: Path, result_path: Path) -> None:
    job = json.loads(job_path.read_bytes())
    packages = assets.handler_module("ember_packages")
    assets.handler_module("ember_preprocessing")
    candidates = [
        packages.load(Path(one["folder"]), one["description"], report=_report(one["name"]), threads=job["threads"])
        for one in job["candidates"]
    ]
    rows = [_rows(Path(job["rows"]) if job["rows"] else None, Path(one["folder"]), one) for one in job["candidates"]]
    result: dict[str, Any] = {
        one["name"]: {"package": model.package, "skipped": model.skipped, "timings": [], "rss_mb": 0.0}
        for one, model in zip(job["candidates"], candidates, strict=True)
    }
    for batch_size in job["batch_sizes"]:
        batches = [_batch(inputs, batch_size) for inputs, _ in rows]
        for one, timing in zip(job["candidates"], time_interleaved(candidates, batches, job["rounds"]), strict=True):
            result[one["name"]]["timings"].append({"batch": batch_size, **timing})
        print(f"timed {job['rounds']} rounds at batch {batch_size}", flush=True)
    for one, model, (inputs, labels) in zip(job["candidates"], candidates, rows, strict=True):
        if labels is not None:
            result[one["name"]]["correct"] = score(model, inputs, labels)
    result_path.write_text(json.dumps(result), encoding="utf-8")


def time_interleaved(candidates: list[Program], batches: list[Batch], rounds: int) -> list[dict[str, list[float]]]:
    """Wall and process CPU milliseconds of one call, `rounds` numbers each, candidate by candidate."""
    calls = [_calls_per_sample(model, batch) for model, batch in zip(candidates, batches, strict=True)]
    timings: list[dict[str, list[float]]] = [{"wall_ms": [], "cpu_ms": []} for _ in candidates]
    for turn in range(rounds):
        for offset in range(len(candidates)):
            which = (turn + offset) % len(candidates)
            model, batch, repeat = candidates[which], batches[which], calls[which]
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                model(batch)
            timings[which]["cpu_ms"].append((time.process_time() - cpu) * 1e3 / repeat)
            timings[which]["wall_ms"].append((time.perf_counter() - wall) * 1e3 / repeat)
    return timings


def score(model: Program, inputs: Batch, labels: NDArray[Any], batch_size: int = 64) -> list[int]:
    """1 for each row whose largest first output is its label, else 0."""
    correct: list[int] = []
    for start in range(0, len(labels), batch_size):
        outputs = model(tuple(array[start : start + batch_size] for array in inputs))[0]
        correct.extend((outputs.argmax(axis=-1) == labels[start : start + batch_size]).astype(int).tolist())
    return correct


def _calls_per_sample(model: Program, batch: Batch) -> int:
    for _ in range(_WARM_UP_CALLS):
        model(batch)
    begin = time.perf_counter()
    model(batch)
    once_ms = max((time.perf_counter() - begin) * 1e3, 1e-3)
    return int(min(max(1, round(_SAMPLE_MS / once_ms)), _MOST_CALLS))


def _rows(path: Path | None, folder: Path, one: dict[str, Any]) -> tuple[Batch, NDArray[Any] | None]:
    """Prepared rows and labels from the job's file, or the artifact's own probe, without a label."""
    if path is None:
        probe = assets.handler_module("ember_packages").probe_row(folder, one["description"])
        return tuple(array[np.newaxis] for array in probe), None
    with np.load(path) as arrays:
        return tuple(arrays[f"input{i}"] for i in range(len(arrays.files) - 1)), arrays["labels"]


def _batch(inputs: Batch, size: int) -> Batch:
    """`size` rows, repeated from the start where there are fewer."""
    return tuple(np.ascontiguousarray(np.resize(array, (size, *array.shape[1:]))) for array in inputs)


def _report(name: str) -> Callable[[str], None]:
    return lambda text: print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
