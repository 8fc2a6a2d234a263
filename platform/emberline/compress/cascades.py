"""The recipe's cascades: tuned and judged on validation rows, told, and written down for `emberline archive`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emberline import assets
from emberline.artifact import PROBE, Artifact, Probe, read_artifact, to_json
from emberline.cascade import FOLDER, FOUND, Found, PassFound, read_found
from emberline.compress import thresholds
from emberline.compress.job import Job
from emberline.compress.thresholds import Answers, Cost, Judged, Rule
from emberline.errors import EmberlineError, InvalidSetting, StageFailed
from emberline.paper import Manifest, digest_of, read_manifest, write_paper
from emberline.recipe import Cascade

if TYPE_CHECKING:
    from emberline.compress.context import Context


@dataclass(frozen=True)
class _Pass:
    folder: Path
    manifest: Manifest
    artifact: Artifact


def tune_cascades(job: Job, make_context: "Callable[[], Context]") -> None:
    """Finds or judges the rules of each cascade whose artifacts are there; unchanged ones are reused.

    Raises:
        StageFailed: no rules keep a cascade as good as `max_drop` asks; what was found of the others is written.
        InvalidSetting: a rule for rankings is to be tuned, and the rows do not say which belong together.
    """
    failures = []
    for name, cascade in (job.recipe.archive.cascades if job.recipe.archive else {}).items():
        missing = [one.artifact for one in cascade.passes if not (job.artifacts / one.artifact).is_dir()]
        if missing:
            job.log.say(f"cascade {name}: not judged, as there is no artifact {missing[0]}")
            continue
        try:
            _tune(job, name, cascade, make_context)
        except StageFailed as error:
            job.log.say(f"cascade {name}: {error.fact}")
            failures.append(error)
    if failures:
        raise failures[0]


def _tune(job: Job, name: str, cascade: Cascade, make_context: "Callable[[], Context]") -> None:
    passes = [_read(job.artifacts / one.artifact) for one in cascade.passes]
    target = job.folder / FOLDER / name
    key = digest_of({"cascade": cascade.model_dump(mode="json"), "of": [one.manifest.digest for one in passes]})
    if (target / FOUND).is_file() and read_manifest(target).facts.get("key") == key:
        job.log.say(f"cascade {name}: {_told(read_found(job.folder, name))} (reused)")
        return
    costs = [_cost(one) for one in passes]
    context = make_context()
    answers = _answers(context, passes, "validation")
    chosen = _chosen(job, name, cascade, answers, passes=passes, costs=costs)
    found = _found(cascade, chosen, answers, passes=passes, costs=costs)
    if len(context.splits.test):  # read for the report alone, when all has been chosen
        tested = _answers(context, passes, "test")
        quality = thresholds.judge(tested, chosen.rules, costs, cascade.top).quality
        whole = thresholds.alone(tested, len(passes) - 1, cascade.top)
        found = found.model_copy(update={"test_quality": quality, "test_alone": whole})
    with write_paper(target, "report", recipe=job.recipe.digest, seed=job.recipe.seed, parent=job.parent) as draft:
        (draft.folder / FOUND).write_bytes(to_json(found))
        draft.facts["key"] = key
    job.log.say(f"cascade {name}: {_told(found)}")


def _read(folder: Path) -> _Pass:
    return _Pass(folder, *read_artifact(folder))


def _cost(one: _Pass) -> Cost:
    """CPU time by the size of a batch, as it was measured."""
    measured = one.artifact.measurement
    if measured is None or not measured.latencies:
        raise EmberlineError("was not measured, so what it costs is not known", place=one.folder)
    latencies = sorted(measured.latencies, key=lambda latency: latency.batch)
    return Cost(tuple(one.batch for one in latencies), tuple(1e3 * one.cpu_ms for one in latencies))


def _answers(context: "Context", passes: Sequence[_Pass], split: str) -> Answers:
    """What every pass's package answers to all rows of a split."""
    loader, prediction = (assets.handler_module(name) for name in ("ember_packages", "ember_prediction"))
    inputs, labels = getattr(context, split)
    groups = getattr(getattr(context.splits, split), "groups", None)
    relevance, confidence, correct = [], [], []
    for one in passes:
        model = loader.load(one.folder, one.artifact.model_dump(mode="json"), report=lambda _text: None)
        predictions = prediction.interpret(model(inputs)[0], one.artifact.labels)
        if not predictions.usable.all():
            raise StageFailed("cascade", f"{one.folder.name} answers a row of {split} with numbers that are not finite")
        relevance.append(predictions.relevances)
        confidence.append(predictions.score)
        correct.append(predictions.best == labels)
    return Answers(
        np.asarray(relevance, np.float64),
        np.asarray(confidence, np.float64),
        np.asarray(correct),
        labels.astype(np.float64),
        None if groups is None else np.asarray(groups),
    )


def _chosen(
    job: Job, name: str, cascade: Cascade, answers: Answers, *, passes: Sequence[_Pass], costs: Sequence[Cost]
) -> Judged:
    """The cheapest rules that are as good as the recipe asks; the recipe's own where it leaves none to be tuned."""
    whole = thresholds.alone(answers, len(passes) - 1, cascade.top)
    drop = cascade.max_drop
    least = -1.0 if drop is None else whole * (1 - drop) if answers.is_ranked else whole - drop
    choices = _choices(job, cascade, answers, passes)
    chosen = thresholds.cheapest(answers, choices, costs, least=least, top=cascade.top)
    if chosen is None:
        most = thresholds.judge(answers, [choice[-1] for choice in choices], costs, cascade.top).quality
        raise StageFailed(
            f"cascade {name}",
            f"{_measure(answers)} is {most:.4f} on validation rows, and {whole:.4f} of "
            f"{passes[-1].folder.name} alone; at least {least:.4f} is required",
            hint="let more rows go on by keep or confidence, allow a larger max_drop, or better the light passes",
        )
    return chosen


def _choices(job: Job, cascade: Cascade, answers: Answers, passes: Sequence[_Pass]) -> list[list[Rule]]:
    """For each pass but the last, the rules it may have, ending with the one that sends most rows on."""
    rules = cascade.passes[:-1]
    count = thresholds.num_choices(sum(one.is_tuned for one in rules))
    found: list[list[Rule]] = []
    for place, rule in enumerate(rules):
        if rule.keep == "tuned" and not answers.is_ranked:
            raise InvalidSetting(
                job.path,
                f"archive.cascades…{rule.artifact}.keep",
                "tuned",
                "a number, as the validation rows have no `groups` that tell which are one request's,",
            )
        if rule.confidence == "tuned" and (answers.is_ranked or not passes[place].artifact.labels):
            why = "the rows are rankings" if answers.is_ranked else "the model has no labels"
            raise InvalidSetting(
                job.path, f"archive.cascades…{rule.artifact}.confidence", "tuned", f"a number, as {why},"
            )
        kept = [None if rule.keep is None else int(rule.keep)] if rule.keep != "tuned" else None
        sure = [rule.confidence] if rule.confidence != "tuned" else None
        longest = max((len(rows) for rows in answers.lists), default=0)
        found.append(
            [
                (keep, confidence if confidence is None else float(confidence))
                for keep in kept or thresholds.keeps(longest, cascade.top, count)
                for confidence in sure or _away_from_probe(passes[place], answers.confidence[place], count)
            ]
        )
    return found


def _away_from_probe(one: _Pass, confidence: Any, count: int) -> list[float]:
    """Thresholds that the probe's own confidence is clear of: else another CPU might send it the other way."""
    probe = Probe.model_validate_json((one.folder / PROBE).read_bytes())
    raw = np.asarray(probe.expected)
    shares = np.exp(raw - raw.max())
    own = float((shares / shares.sum()).max())
    return [value for value in thresholds.confidences(confidence, count) if abs(value - own) > 1.01 * probe.tolerance]


def _found(
    cascade: Cascade, chosen: Judged, answers: Answers, *, passes: Sequence[_Pass], costs: Sequence[Cost]
) -> Found:
    rules: list[Rule] = [*chosen.rules, (None, None)]
    measured, many = passes[-1].artifact.measurement, thresholds.at_once(answers, costs)
    return Found(
        measure=_measure(answers),
        rows=len(answers.gain),
        requests=len(answers.lists) or None,
        top=cascade.top if answers.is_ranked else None,
        quality=chosen.quality,
        alone=thresholds.alone(answers, len(passes) - 1, cascade.top),
        cpu_us=chosen.cost_us,
        alone_cpu_us=costs[-1].of(many) / many,
        machine=measured.machine if measured else "",
        passes=tuple(
            PassFound(
                artifact=one.folder.name,
                digest=one.manifest.digest,
                keep=keep,
                confidence=confidence,
                reached=reached,
                cpu_us=cost.of(many * reached) / (many * reached) if reached else 0.0,
            )
            for one, (keep, confidence), reached, cost in zip(passes, rules, chosen.reached, costs, strict=True)
        ),
    )


def _measure(answers: Answers) -> Any:
    return "ndcg" if answers.is_ranked else "accuracy"


def _told(found: Found) -> str:
    what = f"NDCG@{found.top}" if found.measure == "ndcg" else "accuracy"
    rules = [
        f"{one.artifact}"
        + (f" keep {one.keep}" if one.keep is not None else "")
        + (f" confidence {one.confidence:g}" if one.confidence is not None else "")
        + f" ({one.reached:.1%} of rows)"
        for one in found.passes
    ]
    tested = "" if found.test_quality is None else f"; on test rows {found.test_quality:.4f} of {found.test_alone:.4f}"
    return (
        f"{' -> '.join(rules)}: {what} {found.quality:.4f}, alone {found.alone:.4f}{tested}; "
        f"CPU {found.cpu_us:.1f} us a row, alone {found.alone_cpu_us:.1f}"
    )
