"""The end of a run: the trained artifact, then the run's manifest, whose presence means that it has ended."""

import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import save_file

from emberline import storage
from emberline.artifact import DESCRIPTION, Artifact, to_json
from emberline.paper import MANIFEST, FileEntry, Manifest, manifest_bytes, write_paper
from emberline.recipe import Recipe
from emberline.runlog import read_events
from emberline.train import fence
from emberline.train.evaluate import evaluate
from emberline.train.folder import RECIPE, TRAINED, RunFolder
from emberline.train.loop import Training
from emberline.train.summary import since_anew, summarise

_WEIGHTS = "model.safetensors"


def finish(run: RunFolder, recipe: Recipe, training: Training, generation: int, steps: int) -> None:
    """Writes what training leaves behind, once its last state is saved; all ranks call it together, rank 0 writes.

    Args:
        steps: done; fewer than were planned where training ended early.

    Raises:
        Fenced: a newer world trains this run.
    """
    world, plan = training.job.world, training.job.batches.plan
    seen = evaluate(training.learner.evaluated, training.validation, training.judge, world)
    if world.rank == 0:
        training.keeping.tell_restart()
        events = since_anew(read_events(run.log))
        losses = [event["loss"] for event in events if event["event"] == "step"]
        facts = {
            **summarise(events).facts(),
            "steps": steps,
            "epochs": plan.epoch_of(steps),
            "best_epoch": int(training.learner.progress["best_epoch"]) or None,
            "rows": plan.num_rows,
            "sample": recipe.data.sample,
            "loss": losses[-1] if losses else None,
            "metric": seen.metric,
            seen.metric: seen.value,
            "training": run.digest,
            "world_sizes": sorted({event["world_size"] for event in events if event["event"] == "world"}),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        }
        _write(run, recipe, training, facts, generation)
        training.log.event("done", **facts)
    world.barrier()
    training.keeping.forget_snapshots()


def _write(run: RunFolder, recipe: Recipe, training: Training, facts: dict[str, object], generation: int) -> None:
    path, metric = run.path / RECIPE, str(facts["metric"])
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
    artifact = Artifact(
        model=recipe.model,
        weights=_WEIGHTS,
        preprocessing=recipe.preprocessing,
        labels=recipe.labels,
        stages=({"stage": "train", **{key: facts[key] for key in ("epochs", "steps", metric, "rows", "sample")}},),
    )
    staging = run.path / f".staging-{generation}"
    try:
        with write_paper(
            staging / Path(TRAINED).name, "artifact", recipe=recipe.digest, seed=recipe.seed, parent=manifest
        ) as draft:
            weights = {
                n: t.detach().cpu().contiguous().clone() for n, t in training.learner.evaluated.state_dict().items()
            }
            save_file(weights, draft.folder / _WEIGHTS)
            storage.write_bytes(draft.folder / DESCRIPTION, to_json(artifact))
            draft.facts.update({key: facts[key] for key in (metric, "steps", "loss", "rows", "sample")})
        storage.write_bytes(staging / MANIFEST, manifest_bytes(manifest))
        (run.path / TRAINED).parent.mkdir(exist_ok=True)
        fence.commit(run.path, generation, staging / Path(TRAINED).name, run.path / TRAINED)
        fence.commit(run.path, generation, staging / MANIFEST, run.path / MANIFEST)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
