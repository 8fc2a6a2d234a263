"""Running an artifact's steps, from the last one that is still in the cache. No torch until a step has to run."""

import importlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberline.compress.kept import altered
from emberline.compress.plan import FUNCTIONS, STATE, Step
from emberline.errors import EmberlineError, StageFailed
from emberline.runlog import RunLog

if TYPE_CHECKING:
    from emberline.compress.context import Context
    from emberline.compress.state import State

# how a stage is told to leave a layer alone
_EXEMPT = {"prune": "name it in ignored_layers", "quantize": "name it in skip_layers"}
_KEPT = 40  # folders of the cache that outlive the runs which used them


@dataclass(frozen=True)
class Done:
    """A finished step.

    Attributes:
        note: what it reports; `accuracy` (validation rows), `parameters` and `weights_bytes` after it among it.
        cached: whether an earlier run did it.
    """

    name: str
    folder: Path
    seconds: float
    note: dict[str, Any]
    cached: bool


def run_chain(
    artifact: str,
    *,
    steps: Sequence[Step],
    cache: Path,
    log: RunLog,
    make_context: Callable[[], "Context"],
    first_state: Callable[[], "State"],
) -> list[Done]:
    """Does the steps that the cache does not hold, each kept as soon as it is done.

    Args:
        first_state: the trained model; called only when no step is in the cache.
    """
    ready = 0
    while ready < len(steps) and _is_held(artifact, folder_of(cache, steps[ready]), log):
        ready += 1
    done = [_read(step, folder_of(cache, step), cached=True) for step in steps[:ready]]
    if ready:
        log.say(f"{artifact}: {', '.join(one.name for one in done)} unchanged, reused")
    if ready == len(steps):
        return done
    from emberline.compress.program import require_usable
    from emberline.compress.stage_latency import eager_ms
    from emberline.compress.state import read_state, write_state

    context = make_context()
    state = read_state(done[-1].folder, context.recipe, context.search) if done else first_state()
    if not done:
        require_usable(state.model, context)
    for position, step in enumerate(steps[ready:], start=ready + 1):
        log.say(f"{artifact}: {step.name} ({position}/{len(steps)}) …")
        begin = time.monotonic()
        folder = folder_of(cache, step)
        context.scratch = folder.with_name(f"{folder.name}.{os.getpid()}.work.partial")
        try:
            with log.waiting(f"{artifact}: {step.name}"):
                state = _done(step, state, context)
                state = state.noted(context, time.monotonic() - begin)
                state = replace(state, note={**state.note, "latency_ms": eager_ms(state, context)})
                write_state(state, folder)
        finally:
            shutil.rmtree(context.scratch, ignore_errors=True)
        state = state.kept_in(folder)
        done.append(_read(step, folder, cached=False))
        facts = {"artifact": artifact, "stage": step.name, "seconds": done[-1].seconds}
        log.event("compress_stage", **facts, accuracy=done[-1].note["accuracy"])
        own_s, all_s = done[-1].seconds, time.monotonic() - begin
        seen = f"measured in {all_s - own_s:.1f} s: accuracy {done[-1].note['accuracy']:.2%}"
        log.say(f"{artifact}: {step.name} took {own_s:.1f} s, {seen}")
    return done


def _done(step: Step, state: "State", context: "Context") -> "State":
    """The state after a step.

    Raises:
        StageFailed: whatever a library or the user's own code raised, so that it ends this artifact and no other.
    """
    from emberline import models

    model = state.model
    try:
        return function_of(step.name)(state, step.settings, context)
    except EmberlineError:
        raise
    except Exception as error:
        context.log.event("stage_failed", stage=step.name, traceback="".join(traceback.format_exception(error)))
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = ": ".join([type(error).__name__, *lines[:1]])
        layer = models.failing_layer(error, model)
        fact = f"layer {layer} cannot be worked on: {told}" if layer else told
        exempt = [_EXEMPT[step.name]] if layer and step.name in _EXEMPT else []
        hint = "; ".join([*exempt, "the traceback is in the run's log.jsonl"])
        raise StageFailed(step.name, fact, hint=hint) from error


def _is_held(artifact: str, folder: Path, log: RunLog) -> bool:
    """Whether a step is in the cache, whole."""
    if not (folder / STATE).is_file():
        return False
    wrong = altered(folder)
    if wrong is not None:
        log.say(f"{artifact}: {folder / wrong} is not as it was written, so the stage is done again")
    return wrong is None


def folder_of(cache: Path, step: Step) -> Path:
    return cache / f"{step.name}-{step.key[:20]}"


def tidy(cache: Path, needed: Iterable[Step] = ()) -> None:
    """Removes what dead processes left half-written, and the oldest folders beyond a number.

    Args:
        needed: steps of the run that begins, whose folders stay however many they are.
    """
    if not cache.is_dir():
        return
    for path in cache.glob("*.partial"):
        owner = next((part for part in path.name.split(".")[1:] if part.isdigit()), "")
        if not owner or not Path(f"/proc/{owner}").exists():
            shutil.rmtree(path, ignore_errors=True)
    kept = {folder_of(cache, step) for step in needed}
    others = (path for path in cache.iterdir() if path.is_dir() and path not in kept)
    folders = sorted(others, key=lambda path: path.stat().st_mtime)
    for path in folders[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _read(step: Step, folder: Path, *, cached: bool) -> Done:
    described = json.loads((folder / STATE).read_bytes())
    os.utime(folder)  # used now: the oldest are removed first
    return Done(step.name, folder, described["note"]["seconds"], described["note"], cached)


def function_of(name: str) -> Callable[..., "State"]:
    """What does a step; its module is loaded now."""
    module, _, function = FUNCTIONS[name].partition(":")
    found: Callable[..., State] = getattr(importlib.import_module(module), function)
    return found
