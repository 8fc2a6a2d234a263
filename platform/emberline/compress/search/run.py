"""`emberline compress --search`: cheap looks at many nets, full evaluations of few, and those that no other beats."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emberline.compress.choice import mean_latency_ms
from emberline.compress.entry import Entry
from emberline.compress.job import open_job
from emberline.compress.report import write_report
from emberline.compress.run import command_of, judge_all, run_chains, score_published
from emberline.compress.search.front import point_name, print_front, write_points
from emberline.compress.search.records import Records, records_of
from emberline.compress.search.select import Costs, Evaluated, Look, choose_next, front_of
from emberline.compress.search.sought import Sought
from emberline.compress.search.space import Candidate
from emberline.errors import MissingTool, StageFailed

_PATIENCE = 10  # full evaluations in a row without an accepted point, after which a search ends


def search_recipe(path: Path, settings: Sequence[str], runs: Path) -> None:
    """Searches, and writes the front: a recipe for each point, `front.json`, a report, a table.

    Raises:
        InvalidSetting: the recipe has no search section, or it names an argument that the factory does not take.
        MissingTool: the extra `search` is not installed.
        StageFailed: no candidate passed the gates.
    """
    sought = Sought(open_job(path, settings, runs))
    job, search = sought.job, sought.search
    _require_optuna()
    from emberline.compress.search.walk import walk

    records = records_of(sought)
    looks = walk(sought, records)
    every = [Candidate(net, precision) for net, _ in looks.values() for precision in search.precisions]
    candidates = [one for one in every if not sought.is_baseline(one)]
    evaluated = _evaluate(sought, candidates, {key: look for key, (_, look) in looks.items()}, records)
    accepted = {point_name(one, evaluated): one for one in evaluated if one.failure is None}
    if not accepted:
        last = evaluated[-1].failure if evaluated else "there was no candidate"
        hint = "looser gates, more epochs, or smaller ratios; what was evaluated is kept"
        raise StageFailed(
            "search", f"none of {len(evaluated)} evaluated candidates passed the gates: {last}", hint=hint
        )
    entries = _side_by_side(sought, accepted)
    front = front_of([_measured_anew(one, entries[name]) for name, one in accepted.items()])
    command = command_of(path, settings, runs, "--search")
    written = write_points(sought, records.folder, front, evaluated, settings=settings, command=command)
    kept = {name: entry for name, entry in entries.items() if name == job.settings.baseline or name in written}
    page = write_report(
        records.folder,
        sought.jobs({}).recipe,
        kept,
        command=command,
        runs=runs,
        tested=score_published(sought.jobs({}), kept),
        made_by={name: command_of(made, (), runs) for name, made in written.items()},
    )
    print_front(front, evaluated, written, looks=len(looks), console=job.log.console)
    job.log.say(f"report: {page}")


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingTool("optuna", "nothing can be searched", hint="pip install 'emberline[search]'") from error


def _evaluate(
    sought: Sought, candidates: Sequence[Candidate], looks: dict[str, Look], records: Records
) -> list[Evaluated]:
    """Full evaluations, one after the other, each chosen by what those before it found."""
    evaluated: list[Evaluated] = []
    wanted, say = sought.search.evaluations, sought.job.log.say
    while len(evaluated) < wanted and not _hopeless(evaluated):
        chosen = choose_next(candidates, looks, evaluated, least_accuracy=records.least_accuracy)
        if chosen is None:
            say(f"search: no other candidate promises more after {len(evaluated)} evaluations")
            break
        known = records.evaluation(chosen)
        if known is None:
            say(f"search: evaluation {len(evaluated) + 1}/{wanted}: {chosen.key}")
            known, least = _evaluate_one(sought, chosen)
            records.add_evaluation(known, least)
            say(f"search: {chosen.key}: {known.failure or 'accepted'}")
        evaluated.append(known)
    return evaluated


def _hopeless(evaluated: Sequence[Evaluated]) -> bool:
    return len(evaluated) >= _PATIENCE and all(one.failure for one in evaluated[-_PATIENCE:])


def _evaluate_one(sought: Sought, candidate: Candidate) -> tuple[Evaluated, float | None]:
    """One candidate beside the baseline; and the accuracy below which its gate fails, where it has one."""
    single, name, baseline = sought.jobs({sought.name: candidate}), sought.name, sought.job.settings.baseline
    plans = {one: single.plan(one) for one in single.names()}
    chains, failures = run_chains(single, plans)
    if name in failures:
        return Evaluated(candidate, None, failures[name].fact), None
    entries = judge_all(single, plans, chains)
    most = single.settings.artifacts[name].gates.max_accuracy_drop
    least = None if most is None else entries[baseline].measurement.accuracy - most
    return _measured_anew(Evaluated(candidate, None, None), entries[name]), least


def _side_by_side(sought: Sought, accepted: dict[str, Evaluated]) -> dict[str, Entry]:
    """All accepted points and the baseline in the same rounds: each had other neighbours in its own evaluation."""
    together = sought.jobs({name: one.candidate for name, one in accepted.items()})
    plans = {name: together.plan(name) for name in together.names()}
    chains, failures = run_chains(together, plans)
    for failure in failures.values():
        raise failure
    return judge_all(together, plans, chains)


def _measured_anew(one: Evaluated, entry: Entry) -> Evaluated:
    measured = entry.measurement
    costs = Costs(measured.accuracy, mean_latency_ms(entry.measured), measured.size_bytes / 1e6, measured.memory_mb)
    return replace(one, costs=costs, failure=entry.failure.fact if entry.failure else None)
