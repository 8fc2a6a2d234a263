"""Serves one artifact in each of the settings, measures it, and writes the best into a new revision of the artifact."""

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from emberline import process
from emberline.archive.store import write_archive
from emberline.artifact import DESCRIPTION, PROBE, Probe, read_artifact, to_json
from emberline.errors import EmberlineError, InvalidSetting, StageFailed
from emberline.paper import write_paper
from emberline.recipe import Archive, Tuned
from emberline.signing import Keys
from emberline.tune.drive import NothingAnswered, drive
from emberline.tune.grid import Observed, Trial, best

_READY_TIMEOUT_S = 180.0
_WARM_UP_S = 2.0  # java compiles what is hot in the first thousands of requests
_PORTS = ("--port", "--management-port", "--metrics-port", "--health-port")


def tune(
    artifact: Path,
    settings: Archive,
    recipe: Path,
    *,
    overrides: Sequence[str] = (),
    grid: Sequence[Tuned],
    connections: int,
    p99_ms: float | None,
    seconds: float,
    store: Path,
    keys: Keys,
    say: Callable[[str], None],
) -> Trial:
    """Measures every setting of the grid once, after a warm-up, and keeps the best.

    Args:
        overrides: `key.path=value` laid over the recipe, whose other settings of `serve` hold for every trial.

    Raises:
        StageFailed: no setting answers everything within the objective; nothing is changed.
        EmberlineError: the artifact cannot be archived or served.
    """
    if artifact.name not in settings.versions:
        raise InvalidSetting(
            recipe, "archive.versions", artifact.name, f"one of {', '.join(sorted(settings.versions))}"
        )
    with tempfile.TemporaryDirectory(prefix="emberline-tune-") as name:
        scratch = Path(name)
        untuned = scratch / "artifacts" / artifact.name
        revise(artifact, untuned, None, {})
        archive = write_archive(untuned, settings, recipe, store=scratch / "store", keys=keys).path
        body = orjson.dumps(Probe.model_validate_json((artifact / PROBE).read_bytes()).instance)
        path = f"predictions/{settings.model}/{settings.versions[artifact.name]}"
        trials = []
        for number, one in enumerate(grid, start=1):
            options = trial_options(recipe, overrides, one)
            with _served(scratch / f"serve-{number}", archive, keys, options) as address:
                seen = measured(f"http://{address}/{path}", body, connections=connections, seconds=seconds)
            trials.append(Trial(one, seen))
            say(f"{number}/{len(grid)} {_words(one)}: {_figures(trials[-1])}")
    chosen = best(trials, p99_ms)
    _show(trials, chosen)
    if chosen is None:
        raise none_fits(trials, p99_ms, connections)
    seen = chosen.observed
    note = {"connections": connections, "p99_objective_ms": p99_ms, "rps": round(seen.rps, 1)}
    note |= {"p50_ms": round(seen.p50_ms, 3), "p99_ms": round(seen.p99_ms, 3)}
    revise(artifact, artifact, chosen.settings, note)
    stored = write_archive(artifact, settings, recipe, store=store, keys=keys)
    say(f"{stored.path}: {stored.outcome}, signed, for {_words(chosen.settings)}")
    return chosen


def measured(url: str, body: bytes, *, connections: int, seconds: float) -> Observed:
    """What clients saw after a warm-up; of a server that answers nothing, that it did so."""
    try:
        drive(url, body, connections=connections, seconds=_WARM_UP_S)
        return drive(url, body, connections=connections, seconds=seconds)
    except NothingAnswered as nothing:
        return Observed(0.0, math.inf, math.inf, nothing.failed)


def none_fits(trials: Sequence[Trial], p99_ms: float | None, connections: int) -> StageFailed:
    """Why none of the settings measured can be chosen, and which is nearest to it."""
    nearest = min(trials, key=lambda one: (bool(one.observed.failed), one.observed.p99_ms, one.observed.failed))
    reason = "every setting failed requests"
    if not nearest.observed.failed:
        reason = f"no setting keeps p99 at {p99_ms:g} ms"
    return StageFailed(
        "tune",
        f"{reason} with {connections} connections; the nearest is {_words(nearest.settings)}: {_figures(nearest)}",
        hint="fewer connections, a longer p99, or a smaller model",
    )


def revise(artifact: Path, target: Path, serving: Tuned | None, note: Mapping[str, Any]) -> None:
    """A new revision, in the artifact's place or elsewhere: the same files, the settings, and how they were found."""
    manifest, description = read_artifact(artifact)
    stages = tuple(stage for stage in description.stages if stage.get("stage") != "tune")
    if serving is not None:
        stages = (*stages, {"stage": "tune", **note})
    revised = description.model_copy(update={"serving": serving, "stages": stages})
    with write_paper(target, "artifact", recipe=manifest.recipe, seed=manifest.seed, parent=manifest) as draft:
        for file in manifest.files:
            (draft.folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact / file, draft.folder / file)
        (draft.folder / DESCRIPTION).write_bytes(to_json(revised))
        draft.facts.update(manifest.facts)


def trial_options(recipe: Path, overrides: Sequence[str], settings: Tuned) -> list[str | Path]:
    """What has `emberline serve` run as the recipe says, but on the CPU and in the setting that is tried."""
    tried = [f"serve.{key}={value}" for key, value in settings]
    given = [*overrides, "serve.tuned=false", "serve.devices=[]", "serve.device_memory_share=null", *tried]
    return ["--recipe", recipe, *(part for one in given for part in ("--set", one))]


@contextmanager
def _served(folder: Path, archive: Path, keys: Keys, options: Sequence[str | Path]) -> Iterator[str]:
    """`emberline serve` with options; yields its inference address."""
    folder.mkdir(parents=True)
    where: list[str | Path] = ["--keys", keys.public.parent, "--state", folder]
    where += [part for port in _PORTS for part in (port, "0")]
    command = [sys.executable, "-m", "emberline.cli", "serve", archive, *where, *options]
    child = process.start(command, name="emberline serve", env=dict(os.environ), log=folder / "output")
    state = folder / "serve.json"

    def is_ready() -> bool:
        if child.poll() is not None:
            said = (folder / "output").read_text(errors="replace").strip()
            raise EmberlineError(
                f"could not be served with {' '.join(map(str, options))}:\n{said[-2000:]}", place=archive
            )
        return state.is_file()

    try:
        process.wait_until(is_ready, _READY_TIMEOUT_S, "emberline serve being ready")
        yield str(orjson.loads(state.read_bytes())["inference"])
    finally:
        child.stop(30.0)


def _show(trials: Sequence[Trial], chosen: Trial | None) -> None:
    table = Table("workers", "threads", "batch size", "delay ms", "requests/s", "p50 ms", "p99 ms", "failed", "")
    for one in trials:
        seen, mark = one.observed, "chosen" if one is chosen else ""
        figures = (f"{seen.rps:.0f}", f"{seen.p50_ms:.2f}", f"{seen.p99_ms:.2f}", str(seen.failed))
        table.add_row(*(str(value) for _, value in one.settings), *figures, mark)
    Console().print(table)


def _words(settings: Tuned) -> str:
    counts = f"{_counted(settings.workers, 'worker')}, {_counted(settings.threads, 'thread')}"
    return f"{counts}, batches of {settings.batch_size}, delay {settings.batch_delay_ms} ms"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _figures(trial: Trial) -> str:
    seen = trial.observed
    return f"{seen.rps:.0f} requests/s, p50 {seen.p50_ms:.2f} ms, p99 {seen.p99_ms:.2f} ms, {seen.failed} failed"
