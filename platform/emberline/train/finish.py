"""The end of a run: the trained artifact, then the run's manifest, whose presence means that it has ended."""

import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from emberline import storage
from emberline.artifact import DESCRIPTION, Artifact, to_json
from emberline.paper import MANIFEST, FileEntry, Manifest, manifest_bytes, write_paper
from emberline.recipe import Recipe
from emberline.runlog import read_events
from emberline.train import fence
from emberline.train.evaluate import Evaluation, evaluate
from emberline.train.folder import LAST, RECIPE, TRAINED, RunFolder
from emberline.train.loop import Training
from emberline.train.state import Tensors
from emberline.train.summary import data_identity, since_anew, summarise

_WEIGHTS = "model.safetensors"

Facts = dict[str, Any]


def finish(run: RunFolder, recipe: Recipe, training: Training, generation: int, steps: int) -> None:
    """Writes what training leaves behind, once its last state is saved; all ranks call it together, rank 0 writes.

    Where the best weights are carried, these are the trained artifact, and the last ones are kept beside it.

    Args:
        steps: done; fewer than were planned where training ended early.

    Raises:
        Fenced: a newer world trains this run.
    """
    world, learner = training.job.world, training.learner
    last = learner.take_best()
    together = training.settings.strategy == "fsdp2"
    seen = evaluate(learner.evaluated, training.validation, training.judge, world, together=together)
    weights = learner.evaluated.state_dict()
    if together:
        from emberline.train.sharded import whole

        weights, last = whole(weights, world), whole(last, world)
    if world.rank == 0:
        training.keeping.tell_restart()
        facts = _facts(run, recipe, training, seen, steps)
        _write(run, recipe, facts=facts, weights=weights, last=last, generation=generation)
        training.log.event("done", **facts)
    world.barrier()
    training.keeping.forget_snapshots()


def _facts(run: RunFolder, recipe: Recipe, training: Training, seen: Evaluation, steps: int) -> Facts:
    """What the run's manifest tells."""
    plan = training.job.batches.plan
    events = since_anew(read_events(run.log))
    losses = [event["loss"] for event in events if event["event"] == "step"]
    return {
        **summarise(events).facts(),
        "steps": steps,
        "epochs": plan.epoch_of(steps),
        "best_epoch": int(training.learner.progress["best_epoch"]) or None,
        "rows": len(training.job.batches.rows),
        "sample": recipe.data.sample,
        "data_digest": data_identity(events),
        "batch_size": training.settings.rows_per_batch,
        "learning_rate": training.settings.optimizer.learning_rate,
        "loss": losses[-1] if losses else None,
        "metric": seen.metric,
        seen.metric: seen.value,
        "training": run.digest,
        "world_sizes": sorted({event["world_size"] for event in events if event["event"] == "world"}),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }


def _write(run: RunFolder, recipe: Recipe, *, facts: Facts, weights: Tensors, last: Tensors, generation: int) -> None:
    """The artifacts, then the run's manifest."""
    path = run.path / RECIPE
    entry = FileEntry(xxh3=storage.content_hash(path), size_bytes=path.stat().st_size)
    manifest = Manifest(
        kind="run",
        name=recipe.run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=recipe.digest,
        seed=recipe.seed,
        facts=facts,
        files={RECIPE: entry},
    )
    artifacts = {TRAINED: (weights, facts)}
    if last:
        artifacts = {LAST: (last, _facts_of_last(run, facts)), **artifacts}
    staging = run.path / f".staging-{generation}"
    try:
        (run.path / TRAINED).parent.mkdir(exist_ok=True)
        for target, (tensors, told) in artifacts.items():
            _draft(staging / Path(target).name, recipe, manifest, tensors, told)
        storage.write_bytes(staging / MANIFEST, manifest_bytes(manifest))
        for target in artifacts:
            fence.commit(run.path, generation, staging / Path(target).name, run.path / target)
        fence.commit(run.path, generation, staging / MANIFEST, run.path / MANIFEST)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _facts_of_last(run: RunFolder, facts: Facts) -> Facts:
    """Those of the last epoch in place of the best one's."""
    metric = str(facts["metric"])
    epochs = [event for event in since_anew(read_events(run.log)) if event["event"] == "epoch"]
    return {**facts, metric: epochs[-1][metric], "best_epoch": None}


def _draft(target: Path, recipe: Recipe, parent: Manifest, weights: Tensors, facts: Facts) -> None:
    """One artifact, as a whole paper."""
    told = {key: facts[key] for key in ("epochs", "steps", str(facts["metric"]), "best_epoch", "rows", "sample")}
    artifact = Artifact(
        model=recipe.model,
        weights=_WEIGHTS,
        preprocessing=recipe.preprocessing,
        labels=recipe.labels,
        task=recipe.train.task,
        stages=({"stage": "train", **told},),
    )
    with write_paper(target, "artifact", recipe=recipe.digest, seed=recipe.seed, parent=parent) as draft:
        save_file({n: t.detach().cpu().contiguous().clone() for n, t in weights.items()}, draft.folder / _WEIGHTS)
        storage.write_bytes(draft.folder / DESCRIPTION, to_json(artifact))
        kept = (str(facts["metric"]), "steps", "loss", "rows", "sample", "data_digest")
        draft.facts.update({key: facts[key] for key in kept})
