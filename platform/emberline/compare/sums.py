"""One pass over some rows: the order of the statements, and their results as observations. Knows no engine by name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from emberline.compare import queries
from emberline.compare.joint import JointMoments
from emberline.compare.moments import Moments
from emberline.compare.observations import Arm, Labels, Observations, metric_key, segment_key
from emberline.experiment import Experiment, Metric, Segment, Window

UNKNOWN = "a variant of another name"
_FOREVER_US = 1 << 62


class Engine(Protocol):
    """Where statements run; `exposures` and `outcomes` are there."""

    def key(self, column: str) -> str:
        """SQL of an id's key, equal for equal ids only."""

    def hint(self, left: str, right: str) -> str:
        """Advice on joining two tables, given as `alias name`; empty where the engine knows better."""

    def define(self, name: str, select: str, *, keep: bool = True) -> None:
        """Gives a statement's rows a name; `keep` where they are read more than once."""

    def fetch(self, select: str) -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True)
class Question:
    """What is asked of the rows.

    Attributes:
        exploratory: segments that the experiment did not declare.
        until: Unix time; later rows do not count.
    """

    experiment: Experiment
    window: Window
    until: float | None = None
    exploratory: tuple[Segment, ...] = ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return metrics_of(self.experiment)

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (*self.experiment.spec.segments, *self.exploratory)

    @property
    def shadow(self) -> bool:
        return self.experiment.spec.ramp[self.window.step].shadow is not None

    @property
    def outcomes_until_us(self) -> int:
        return _microseconds(self.until)

    @property
    def began_us(self) -> int:
        """Status of a release that did not know when an experiment began: this step is what is known."""
        return _microseconds(self.experiment.status.began or self.window.since)

    @property
    def bounds(self) -> queries.Bounds:
        """Only exposures stop counting at the window's end: labels may come after the verdict."""
        until_us = min(self.outcomes_until_us, _microseconds(self.window.until))
        window = self.window
        names = tuple(variant.name for variant in self.experiment.spec.variants)
        return queries.Bounds(self.experiment.name, names, window.config_version, _microseconds(window.since), until_us)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of exposures that are needed beside the ids."""
        names = {name for metric in self.metrics for name in (metric.metric, metric.per) if name in queries.COLUMNS}
        wanted = {column for name in names for column in queries.COLUMNS[str(name)]}
        return tuple(sorted(wanted | ({"status", "label", "score"} if self.shadow else set())))

    @property
    def outcome_metrics(self) -> tuple[str, ...]:
        """Metrics to be looked for among the outcomes."""
        names = {name for metric in self.metrics for name, _ in queries.outcome_values(metric).values()}
        names |= {metric.covariate.metric for metric in self.metrics if metric.covariate is not None}
        names |= {segment.metric for segment in self.segments}
        if self.shadow:
            names.add(f"shadow_{self.experiment.spec.primary.metric}")
        return tuple(sorted(names))


def metrics_of(experiment: Experiment) -> tuple[Metric, ...]:
    """The experiment's metrics, each once."""
    spec = experiment.spec
    every = (spec.primary, *spec.guardrails, *spec.secondary)
    return tuple({metric_key(metric): metric for metric in every}.values())


def observe_rows(engine: Engine, asked: Question, where: str = "TRUE") -> Observations:
    """Sums of the engine's rows, of which all of a unit's are there.

    Args:
        where: takes some of the units only, in SQL over their `unit`.
    """
    engine.define("exposed", queries.exposed(asked.bounds, asked.columns, engine.key, where))
    rows, distinct = engine.fetch(queries.COPIES)[0]
    once = queries.live_once(asked.columns) if rows != distinct else "SELECT * FROM exposed"
    engine.define("live", once, keep=rows != distinct)
    engine.define("units", queries.units(asked.metrics))
    _define_outcomes(engine, asked, where)
    found = Observations(*_arms(engine, asked))
    return _with_pairs(engine, asked, found, where) if asked.shadow else found


def _define_outcomes(engine: Engine, asked: Question, where: str) -> None:
    engine.define("reported", queries.reported(engine.key, where), keep=False)
    rows, distinct = engine.fetch(queries.REPORTED_COPIES)[0]
    source = queries.REPORTED_ONCE if rows != distinct else "reported"
    engine.define("once", queries.asked_for(asked.outcome_metrics or ("",), asked.outcomes_until_us, source))
    hints = engine.hint("o once", "u units"), engine.hint("o once", "l live")
    engine.define("belonging", queries.belonging(*hints), keep=False)
    engine.define("resulted", queries.resulted(asked.metrics), keep=False)
    engine.define("known_before", queries.known_before(asked.metrics, asked.segments, asked.began_us), keep=False)
    engine.define("unit_values", queries.unit_values(asked.metrics, asked.segments))


def _arms(engine: Engine, asked: Question) -> tuple[dict[str, Arm], int]:
    """Arms by variant, and the number of units seen in more than one."""
    counts = engine.fetch(queries.COUNTS)
    names = (*asked.bounds.variants, UNKNOWN)
    arms = {
        names[number]: Arm(units, requests, fallbacks)
        for number, crossed, units, requests, fallbacks in counts
        if not crossed
    }
    wanted: list[tuple[str, Metric, tuple[int, Segment] | None]] = [(metric_key(m), m, None) for m in asked.metrics]
    primary = asked.experiment.spec.primary
    wanted += [(segment_key(primary, s.name), primary, (i, s)) for i, s in enumerate(asked.segments)]
    for key, metric, segment in () if asked.shadow else wanted:
        for row in engine.fetch(queries.moments(metric, segment)):
            values, joint = _moments(row[1:])
            arm = arms[names[row[0]]]
            more = {**arm.joint, key: joint} if joint.count else arm.joint
            arms[names[row[0]]] = replace(arm, metrics={**arm.metrics, key: values}, joint=more)
    return arms, sum(row[2] for row in counts if row[1])


def _moments(row: Sequence[Any]) -> tuple[Moments, JointMoments]:
    count, mean, m2, both, mean_y, m2_y, mean_x, m2_x, cross = (value or 0 for value in row)
    joint = JointMoments(Moments(both, mean_y, m2_y), Moments(both, mean_x, m2_x), cross) if both else JointMoments()
    return Moments(count, mean, m2), joint


def _with_pairs(engine: Engine, asked: Question, found: Observations, where: str) -> Observations:
    engine.define("copied", queries.copied(asked.bounds, engine.key, where))
    engine.define("pairs", queries.pairs(asked.experiment.spec.agreement))
    counts = {bool(noise): (count, differ) for noise, count, differ in engine.fetch(queries.PAIRS)}
    engine.define("labelled", queries.labelled(asked.experiment.spec.primary.metric), keep=False)
    labels = Labels(*engine.fetch(queries.LABELS)[0])
    (pairs, differ), (second, noise) = counts.get(False, (0, 0)), counts.get(True, (0, 0))
    return replace(found, pairs=pairs, disagreements=differ, noise_pairs=second, noise=noise, labels=labels)


def total(parts: Iterable[Observations]) -> Observations:
    return sum(parts, Observations())


def _microseconds(time: float | None) -> int:
    return _FOREVER_US if time is None else int(time * 1e6)
