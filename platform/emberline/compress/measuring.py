"""Measuring all of a recipe's artifacts, or taking an earlier measurement of the very same files. No torch."""

import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberline import storage
from emberline.measure import Candidate, measure
from emberline.measure.session import Measured
from emberline.paper import digest_of
from emberline.recipe import Compress
from emberline.runlog import RunLog

if TYPE_CHECKING:
    from emberline.compress.context import Context


def measure_all(
    drafts: Mapping[str, tuple[Path, dict[str, Any]]],
    settings: Compress,
    cache: Path,
    log: RunLog,
    make_context: Callable[[], "Context"],
) -> tuple[dict[str, Measured], str]:
    """All artifacts side by side on the validation rows, and the key of that measurement.

    Args:
        drafts: folder and description of each artifact, by name.
    """
    machine = machine_name()
    key = digest_of(
        {
            "packages": {name: _hashes(folder, described) for name, (folder, described) in drafts.items()},
            "batch_sizes": settings.batch_sizes,
            "threads": settings.threads,
            "machine": machine,
        }
    )
    kept = cache / f"measured-{key[:20]}.json"
    if kept.is_file():
        log.say("measure: the same packages were measured on this machine before, reused")
        raw = json.loads(kept.read_bytes())
        return {name: Measured.from_json(one) for name, one in raw.items()}, key
    context = make_context()
    inputs, labels = context.validation
    log.say(f"measure: {', '.join(drafts)} in interleaved rounds at batch {settings.batch_sizes} …")
    measured = measure(
        [Candidate(name, folder, described) for name, (folder, described) in drafts.items()],
        settings.batch_sizes,
        threads=settings.threads,
        inputs=inputs,
        labels=labels,
        log=log,
    )
    storage.write_bytes(kept, json.dumps({name: one.to_json() for name, one in measured.items()}).encode())
    return measured, key


def machine_name() -> str:
    """The CPU's model and how many there are, as reports name the machine."""
    model = platform.processor() or platform.machine()
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else model


def _hashes(folder: Path, described: dict[str, Any]) -> dict[str, str]:
    return {package["file"]: storage.content_hash(folder / package["file"]) for package in described["packages"]}
