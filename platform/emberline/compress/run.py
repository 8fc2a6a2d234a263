"""`emberline compress`, from the recipe to published artifacts, a table and a report. No torch until a stage runs."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from emberline.compress import analysis
from emberline.compress.cascades import tune_cascades
from emberline.compress.chain import Done, run_chain, tidy
from emberline.compress.choice import choose
from emberline.compress.entry import Entry
from emberline.compress.job import Job, Planned, open_job
from emberline.compress.measuring import Drafts, machine_name, measure_all, score_test_rows
from emberline.compress.publish import describe, publish
from emberline.compress.report import write_report
from emberline.compress.table import print_summary
from emberline.compress.verdicts import judge
from emberline.errors import EmberlineError, StageFailed
from emberline.paper import digest_of

RUNS = Path("runs")  # where runs are kept unless another folder is named


def compress_recipe(path: Path, settings: Sequence[str], runs: Path) -> None:
    """Makes, measures, judges and publishes every artifact of a recipe.

    Raises:
        MissingFile: the model was not trained.
        StageFailed: a stage failed, or a candidate failed a gate, and so did its fallbacks; what passed is published
            all the same.
    """
    job = open_job(path, settings, runs)
    plans = {name: job.plan(name) for name in job.names()}
    tidy(job.cache, needed=[step for planned in plans.values() for step in planned.steps])
    chains, failures = run_chains(job, plans)
    entries = judge_all(job, {name: plans[name] for name in chains}, chains)
    for name in job.names():
        first = failures.get(name) or (entries[name].failure if name in entries else None)
        if first is not None and job.settings.artifacts[name].fallbacks:
            found, failure = _fall_back(job, name, first, plans[job.settings.baseline], chains)
            if found is not None:
                entries[name] = found
                failures.pop(name, None)
            elif failure is not None and name in failures:
                failures[name] = failure
    failures.update({name: entry.failure for name, entry in entries.items() if entry.failure is not None})
    for name, entry in entries.items():
        if entry.failure is None:
            written = publish(
                job.artifacts / name, entry.folder, entry.artifact, recipe=job.recipe, parent=job.parent, key=entry.key
            )
            job.log.say(f"{name}: {job.artifacts / name} {'written' if written else 'unchanged, kept'}")
    tested = score_published(job, entries)
    report = write_report(
        job.folder / "compress",
        job.recipe,
        entries,
        command=command_of(path, settings, runs),
        runs=runs,
        tested=tested,
        rows=["--recipe", str(path), *_set(settings)],
    )
    print_summary(entries, job.settings, job.log.console)
    job.log.say(f"report: {report}")
    for name, failure in failures.items():
        kept = job.artifacts / name
        text = f"{kept} of an earlier run is kept" if kept.is_dir() else f"{kept} is not written"
        raise StageFailed(failure.place or name, f"{failure.fact}; {text}", hint=failure.hint)
    tune_cascades(job, cache(partial(job.context, plans[job.settings.baseline])))


def command_of(path: Path, settings: Sequence[str], runs: Path, *options: str) -> str:
    """The line that does the same again, settings and folder of runs included."""
    said = ["emberline", "compress", str(path), *options, *_set(settings)]
    return shlex.join([*said, "--runs", str(runs)] if runs != RUNS else said)


def _set(settings: Sequence[str]) -> list[str]:
    return [part for one in settings for part in ("--set", one)]


def run_chains(job: Job, plans: dict[str, Planned]) -> tuple[dict[str, list[Done]], dict[str, EmberlineError]]:
    """Every artifact's steps; a candidate that fails leaves the others alone, a baseline that fails ends all."""
    chains: dict[str, list[Done]] = {}
    failures: dict[str, EmberlineError] = {}
    for name, planned in plans.items():
        try:
            chains[name] = _run_steps(job, name, planned)
        except EmberlineError as error:
            if name == job.settings.baseline:
                raise
            job.log.say(f"{name}: {error.fact}")
            failures[name] = error
    return chains, failures


def _run_steps(job: Job, name: str, planned: Planned) -> list[Done]:
    return run_chain(
        name,
        steps=planned.steps,
        cache=job.cache,
        log=job.log,
        make_context=partial(job.context, planned),
        first_state=job.first_state,
    )


def _fall_back(
    job: Job, name: str, failure: EmberlineError, baseline: Planned, chains: dict[str, list[Done]]
) -> tuple[Entry | None, EmberlineError]:
    """Tries the recipe's fallbacks in order; the first that passes, or None with the last failure."""
    fallbacks = job.settings.artifacts[name].fallbacks
    tried: list[str] = []
    last: Entry | None = None
    for number, stages in enumerate(fallbacks, start=1):
        tried.append(f"{'the recipe' if number == 1 else f'fallback {number - 1}'} failed: {failure.fact}")
        job.log.say(f"{name}: {failure.fact}; fallback {number} of {len(fallbacks)} is tried")
        try:
            planned = job.plan(name, stages)
            done = _run_steps(job, name, planned)
        except EmberlineError as error:
            failure = error
            continue
        both = {job.settings.baseline: baseline, name: planned}
        ran = {job.settings.baseline: chains[job.settings.baseline], name: done}
        last = judge_all(job, both, ran, also_warn=(*tried, f"fallback {number} was taken"))[name]
        last = replace(last, tried=tuple(tried))
        if last.failure is None:
            return last, failure
        failure = last.failure
    return last, failure


def judge_all(
    job: Job, plans: dict[str, Planned], chains: dict[str, list[Done]], also_warn: tuple[str, ...] = ()
) -> dict[str, Entry]:
    """Measures all packages of these chains side by side, picks a leader for each artifact and judges it."""
    described = {name: describe(job.recipe, done, plans[name].because) for name, done in chains.items()}
    drafts: Drafts = {name: (chains[name][-1].folder, one) for name, one in described.items()}
    baseline = job.settings.baseline
    context = cache(partial(job.context, plans[baseline]))
    measured, measurement_key = measure_all(
        drafts, job.settings, job.cache, job.log, context, task=job.recipe.train.task
    )
    reference = choose(described[baseline].packages, measured[baseline], job.settings.artifacts[baseline].gates, None)
    entries = {}
    for name, artifact in described.items():
        because, wanted = plans[name].because, job.settings.artifacts[name].gates
        is_baseline = name == baseline
        choice = reference if is_baseline else choose(artifact.packages, measured[name], wanted, reference.leads)
        warnings = (*((because,) if because else ()), *(() if is_baseline else also_warn))
        verdict = judge(
            name,
            job.settings,
            baseline=reference.leads,
            choice=choice,
            stages=chains[name],
            machine=machine_name(),
            also_warn=warnings,
        )
        found = _analysis(job, plans[name], chains[name])
        said = {"labels": job.recipe.labels, "gates": wanted.model_dump(mode="json"), "warnings": warnings}
        entries[name] = Entry(
            name=name,
            stages=chains[name],
            artifact=artifact.model_copy(update={"measurement": verdict.measurement, "packages": choice.chain}),
            measured=choice.leads,
            outcomes=verdict.outcomes,
            failure=_with_layers(verdict.failure, analysis.worst_layers(found, verdict.blamed or "")),
            analysis=found,
            key=digest_of({"steps": plans[name].steps[-1].key, "measured": measurement_key, **said}),
        )
    return entries


def _analysis(job: Job, planned: Planned, stages: list[Done]) -> analysis.Analysis:
    """Of a chain, from the cache where it was made before."""
    key = planned.steps[-1].key
    found = analysis.read_analysis(job.cache, key)
    if found is None:
        trained, context = job.first_state(), job.context(planned)
        found = analysis.analyse(job.cache, key, trained=trained, stages=stages, context=context)
    return found


def _with_layers(failure: StageFailed | None, layers: list[tuple[str, float]]) -> StageFailed | None:
    """The same failure, naming the layers that lost most where they can be told apart."""
    if failure is None or not layers:
        return failure
    named = ", ".join(f"{layer} ({error:.3g})" for layer, error in layers)
    hint = f"{failure.hint}; it moves the outputs most in {named}, relative error of each layer alone"
    return StageFailed(str(failure.place), failure.fact, hint=hint)


def score_published(job: Job, entries: dict[str, Entry]) -> dict[str, list[float]]:
    """How good the answer to each test row is, of the artifacts that passed: for the report alone."""
    drafts = {name: (entry.folder, entry.artifact) for name, entry in entries.items() if entry.failure is None}
    context = cache(lambda: job.context(job.plan(job.settings.baseline)))
    return score_test_rows(drafts, job.settings, job.cache, context, task=job.recipe.train.task) if drafts else {}
