"""`emberline compress`, from the recipe to published artifacts, a table and a report. No torch until a stage runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from emberline.artifact import Artifact, Backend, read_artifact
from emberline.compress.chain import Done, run_chain, tidy
from emberline.compress.measuring import machine_name, measure_all
from emberline.compress.plan import Step, base_key, choose_backends, plan
from emberline.compress.publish import describe, publish
from emberline.compress.report import Entry, write_report
from emberline.compress.table import print_summary
from emberline.compress.target import Target, this_machine
from emberline.compress.verdicts import judge
from emberline.errors import EmberlineError, InvalidSetting, MissingFile, StageFailed
from emberline.paper import Manifest, digest_of
from emberline.recipe import Compress, Export, Recipe, load_recipe
from emberline.runlog import RunLog

if TYPE_CHECKING:
    from emberline.compress.context import Context
    from emberline.compress.state import State

TRAINED = "trained"
CACHE = ".cache"


@dataclass(frozen=True)
class Planned:
    """One artifact to be made; `because` says why its backends are not the recipe's, where they are not."""

    steps: list[Step]
    backends: tuple[Backend, ...]
    because: str | None


@dataclass(frozen=True)
class Job:
    """What one `emberline compress` works on.

    Attributes:
        path: the recipe's file; its folder is where the user's modules are.
        folder: of the run.
        parent: manifest of the trained artifact.
    """

    path: Path
    recipe: Recipe
    settings: Compress
    folder: Path
    parent: Manifest
    trained: Artifact
    target: Target
    log: RunLog

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def cache(self) -> Path:
        return self.artifacts / CACHE

    def plan_all(self) -> dict[str, Planned]:
        """All artifacts' steps, the baseline's first."""
        base = base_key(self.recipe, self.parent.digest, self.target, self.path.parent)
        plans = {}
        for name in sorted(self.settings.artifacts, key=lambda name: name != self.settings.baseline):
            variant = self.settings.artifacts[name]
            backends, because = choose_backends(variant, self.target)
            if because:
                self.log.say(f"{name}: {because}")
            steps = plan(name, variant, recipe=self.recipe, settings=self.settings, base=base, backends=backends)
            plans[name] = Planned(steps, backends, because)
        return plans

    def context(self, name: str, backends: tuple[Backend, ...]) -> "Context":
        from emberline.compress.context import Context
        from emberline.compress.quiet import quiet_torch

        quiet_torch()
        return Context(
            recipe=self.recipe,
            settings=self.settings,
            search=self.path.parent,
            target=self.target,
            backends=backends,
            log=self.log,
            max_batch=next(
                stage.max_batch for stage in self.settings.artifacts[name].stages if isinstance(stage, Export)
            ),
        )

    def first_state(self) -> "State":
        """The trained model, rebuilt for each artifact: stages change it in place."""
        from emberline import models
        from emberline.compress.state import State

        model = models.build(self.artifacts / TRAINED, self.trained, self.path.parent)
        return State(model=model, edits=self.trained.edits)


def compress_recipe(path: Path, settings: Sequence[str], runs: Path) -> None:
    """Makes, measures, judges and publishes every artifact of a recipe.

    Raises:
        MissingFile: the model was not trained.
        StageFailed: a stage failed, or a candidate failed a gate; what passed is published all the same.
    """
    job = _job(path, settings, runs)
    tidy(job.cache)
    plans = job.plan_all()
    chains, failures = _run_chains(job, plans)
    entries, keys = _judge_all(job, plans, chains)
    for name, entry in entries.items():
        if entry.failure is not None:
            failures[name] = entry.failure
            continue
        source, target = chains[name][-1].folder, job.artifacts / name
        written = publish(target, source, entry.artifact, recipe=job.recipe, parent=job.parent, key=keys[name])
        job.log.say(f"{name}: {target} {'written' if written else 'unchanged, kept'}")
    report = write_report(job.folder / "compress", job.recipe, entries, path)
    print_summary(entries, job.settings, job.log.console)
    job.log.say(f"report: {report}")
    for name, failure in failures.items():
        kept = job.artifacts / name
        text = f"{kept} of an earlier run is kept" if kept.is_dir() else f"{kept} is not written"
        raise StageFailed(failure.place or name, f"{failure.fact}; {text}", hint=failure.hint)


def _job(path: Path, settings: Sequence[str], runs: Path) -> Job:
    recipe = load_recipe(path, settings)
    if recipe.compress is None:
        raise InvalidSetting(path, "compress", "absent", "a compress section", hint="recipes/digits.yaml has one")
    folder = runs / recipe.run
    trained_folder = folder / "artifacts" / TRAINED
    if not trained_folder.is_dir():
        raise MissingFile(trained_folder, "the trained artifact", hint=f"emberline train {path}")
    parent, trained = read_artifact(trained_folder)
    log = RunLog(folder / "log.jsonl")
    return Job(path, recipe, recipe.compress, folder, parent, trained, this_machine(), log)


def _run_chains(job: Job, plans: dict[str, Planned]) -> tuple[dict[str, list[Done]], dict[str, EmberlineError]]:
    """Every artifact's steps; a candidate that fails leaves the others alone, a baseline that fails ends all."""
    chains: dict[str, list[Done]] = {}
    failures: dict[str, EmberlineError] = {}
    for name, planned in plans.items():
        try:
            chains[name] = run_chain(
                name,
                steps=planned.steps,
                cache=job.cache,
                log=job.log,
                make_context=partial(job.context, name, planned.backends),
                first_state=job.first_state,
            )
        except EmberlineError as error:
            if name == job.settings.baseline:
                raise
            job.log.say(f"{name}: {error.fact}")
            failures[name] = error
    return chains, failures


def _judge_all(
    job: Job, plans: dict[str, Planned], chains: dict[str, list[Done]]
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Measures all chains side by side and judges each; also the key of each artifact as measured."""
    described = {name: describe(job.recipe, done, plans[name].because) for name, done in chains.items()}
    drafts = {name: (chains[name][-1].folder, one.model_dump(mode="json")) for name, one in described.items()}
    baseline = job.settings.baseline
    context = cache(partial(job.context, baseline, plans[baseline].backends))
    measured, measurement_key = measure_all(drafts, job.settings, job.cache, job.log, context)
    entries, keys = {}, {}
    for name, artifact in described.items():
        because = plans[name].because
        verdict = judge(
            name,
            job.settings,
            baseline=measured[baseline],
            candidate=measured[name],
            stages=chains[name],
            machine=machine_name(),
            also_warn=(because,) if because else (),
        )
        whole = artifact.model_copy(update={"measurement": verdict.measurement})
        entries[name] = Entry(name, chains[name], whole, measured[name], verdict.outcomes, verdict.failure)
        gates = job.settings.artifacts[name].gates.model_dump(mode="json")
        said = {"labels": job.recipe.labels, "gates": gates, "because": because}
        keys[name] = digest_of({"steps": plans[name].steps[-1].key, "measured": measurement_key, **said})
    return entries, keys
