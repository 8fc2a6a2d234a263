"""Measuring all packages of a recipe, or taking an earlier measurement of the very same files. No torch."""

import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberline import storage
from emberline.artifact import Artifact
from emberline.measure import Candidate, measure
from emberline.measure.session import Measured
from emberline.paper import digest_of
from emberline.recipe import Compress, Task
from emberline.runlog import RunLog

if TYPE_CHECKING:
    from emberline.compress.context import Context

Drafts = Mapping[str, tuple[Path, Artifact]]
ByFile = dict[str, Measured]


def measure_all(
    drafts: Drafts,
    settings: Compress,
    cache: Path,
    log: RunLog,
    make_context: Callable[[], "Context"],
    *,
    task: Task,
) -> tuple[dict[str, ByFile], str]:
    """All packages of all artifacts side by side on the validation rows, and the key of that measurement.

    The interpreted program at a chain's end is the last resort, whatever its speed: it is timed only where it is alone.

    Args:
        drafts: folder and description of each artifact, by name.

    Returns:
        By artifact, then by the package's file.
    """
    key = _key(drafts, settings)
    kept = cache / f"measured-{key[:20]}.json"
    if kept.is_file():
        log.say("measure: the same packages were measured on this machine before, reused")
        return _grouped(drafts, {name: Measured.from_json(one) for name, one in _read(kept).items()}), key
    inputs, labels = make_context().validation
    candidates = [candidate for name, (folder, one) in drafts.items() for candidate in _candidates(name, folder, one)]
    names = ", ".join(candidate.name for candidate in candidates)
    log.say(f"measure: {names} in interleaved rounds at batch {settings.batch_sizes} …")
    with log.waiting("measure"):
        measured = measure(
            candidates,
            settings.batch_sizes,
            threads=settings.threads,
            device=settings.device,
            memory=settings.device == "cpu",  # what a GPU holds is not in the process
            inputs=inputs,
            labels=labels,
            task=task,
            log=log,
        )
    storage.write_bytes(kept, json.dumps({name: one.to_json() for name, one in measured.items()}).encode())
    return _grouped(drafts, measured), key


def score_test_rows(
    drafts: Drafts,
    settings: Compress,
    cache: Path,
    make_context: Callable[[], "Context"],
    *,
    task: Task,
) -> dict[str, list[float]]:
    """How good the answer to each test row is, by artifact, from the package that leads its chain.

    The test rows decide nothing; they are read here for the report, once for each set of packages.
    """
    leading = {name: (folder, _only(one, one.packages[0].file)) for name, (folder, one) in drafts.items()}
    kept = cache / f"tested-{_key(leading, settings)[:20]}.json"
    if kept.is_file():
        earlier: dict[str, list[float]] = _read(kept)
        return earlier
    context = make_context()
    if len(context.splits.test) == 0:
        return {}
    inputs, labels = context.test
    candidates = [Candidate(name, folder, one.model_dump(mode="json")) for name, (folder, one) in leading.items()]
    scored = measure(
        candidates, (), threads=settings.threads, device=settings.device, memory=False, inputs=inputs, labels=labels,
        task=task,
    )  # fmt: skip
    correct = {name: [] if one.correct is None else one.correct.tolist() for name, one in scored.items()}
    storage.write_bytes(kept, json.dumps(correct).encode())
    return correct


def machine_name() -> str:
    """The CPU's model and how many there are, as reports name the machine."""
    model = platform.processor() or platform.machine()
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else model


def _candidates(name: str, folder: Path, artifact: Artifact) -> list[Candidate]:
    """A candidate a package, of a chain of its own."""
    files = [package.file for package in artifact.packages if package.backend != "exported"]
    return [
        Candidate(f"{name}/{file}", folder, _only(artifact, file).model_dump(mode="json"))
        for file in files or [artifact.packages[-1].file]
    ]


def _only(artifact: Artifact, file: str) -> Artifact:
    kept = tuple(package for package in artifact.packages if package.file == file)
    return artifact.model_copy(update={"packages": kept})


def _grouped(drafts: Drafts, measured: Mapping[str, Measured]) -> dict[str, ByFile]:
    return {
        name: {one.package["file"]: one for key, one in measured.items() if key.rpartition("/")[0] == name}
        for name in drafts
    }


def _key(drafts: Drafts, settings: Compress) -> str:
    return digest_of(
        {
            # the folder's name is the key of the stages, and so of the rows too, which equal packages do not tell
            "packages": {name: [folder.name, _hashes(folder, one)] for name, (folder, one) in drafts.items()},
            "batch_sizes": settings.batch_sizes,
            "threads": settings.threads,
            "machine": machine_name(),
        }
    )


def _hashes(folder: Path, artifact: Artifact) -> dict[str, str]:
    return {package.file: storage.content_hash(folder / package.file) for package in artifact.packages}


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())
