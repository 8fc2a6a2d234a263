"""Which rows of a cascade go on to which model, how good that is, and the cheapest rules that are good enough. Pure.

Legend of shapes: P passes, B rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rule = tuple[int | None, float | None]  # keep, confidence: of each pass but the last

# as many combinations of rules as are looked at, whatever their number
_MAX_TRIED = 4000
_MOST_A_RULE = 40


@dataclass(frozen=True)
class Cost:
    """CPU time of one pass by the number of rows it is given at once: many at once cost less each.

    Attributes:
        rows: ascending; `cpu_us` is the time of that many together.
    """

    rows: tuple[int, ...]
    cpu_us: tuple[float, ...]

    def of(self, rows: float) -> float:
        """Of so many rows, in proportion between those that were measured, and beyond the last."""
        if rows > self.rows[-1]:
            return self.cpu_us[-1] * rows / self.rows[-1]
        return float(np.interp(rows, (0, *self.rows), (0.0, *self.cpu_us)))


@dataclass(frozen=True)
class Answers:
    """What each pass alone answers to the same rows.

    Attributes:
        relevance: (P, B), what an item is ranked by.
        confidence: (P, B), probability of the likeliest class.
        correct: (P, B), whether that class is the label.
        gain: (B,), of a ranking's item, what it is worth to be shown: its label.
        groups: (B,), the request that each row is a candidate of; None where rows stand for themselves.
        lists: the rows of each request.
    """

    relevance: Floats
    confidence: Floats
    correct: NDArray[np.bool_]
    gain: Floats
    groups: NDArray[np.int64] | None = None
    lists: tuple[NDArray[np.intp], ...] = field(init=False)

    def __post_init__(self) -> None:
        groups = self.groups
        found = () if groups is None else tuple(np.flatnonzero(groups == one) for one in np.unique(groups))
        object.__setattr__(self, "lists", found)

    @property
    def is_ranked(self) -> bool:
        return self.groups is not None


@dataclass(frozen=True)
class Judged:
    """Rules with what they come to.

    Attributes:
        reached: fraction of the rows that each pass looks at.
        cost_us: CPU time for one row, all passes together.
    """

    rules: tuple[Rule, ...]
    quality: float
    reached: tuple[float, ...]
    cost_us: float


def judge(answers: Answers, rules: Sequence[Rule], costs: Sequence[Cost], top: int) -> Judged:
    """Quality and cost of the cascade under these rules."""
    quality, reached = _ranked(answers, rules, top) if answers.is_ranked else _single(answers, rules)
    many = at_once(answers, costs)
    spent_us = sum(cost.of(many * share) for cost, share in zip(costs, reached, strict=True))
    return Judged(tuple(rules), quality, reached, spent_us / many)


def at_once(answers: Answers, costs: Sequence[Cost]) -> float:
    """Rows that the first pass is given together: a request's candidates, or the largest batch that was measured."""
    if answers.is_ranked:
        return len(answers.gain) / len(answers.lists)
    return float(min(cost.rows[-1] for cost in costs))


def alone(answers: Answers, place: int, top: int) -> float:
    """Quality of one pass that looks at all rows."""
    if not answers.is_ranked:
        return float(answers.correct[place].mean())
    scores = answers.relevance[place]
    return float(np.mean([_ndcg(answers.gain[rows], _best_first(scores[rows]), top) for rows in answers.lists]))


def cheapest(
    answers: Answers, choices: Sequence[Sequence[Rule]], costs: Sequence[Cost], *, least: float, top: int
) -> Judged | None:
    """The rules of least cost whose quality is no less than `least`; None where none are that good.

    Args:
        choices: for each pass but the last, the rules it may have.
    """
    judged = (judge(answers, rules, costs, top) for rules in _combined(choices))
    good = [one for one in judged if one.quality >= least]
    return min(good, key=lambda one: (one.cost_us, -one.quality), default=None)


def _combined(choices: Sequence[Sequence[Rule]]) -> Iterator[tuple[Rule, ...]]:
    """All combinations in which no pass keeps more than the one before it."""
    for rules in product(*choices):
        kept = [keep for keep, _ in rules if keep is not None]
        if kept == sorted(kept, reverse=True):
            yield rules


def num_choices(num_tuned: int) -> int:
    """How many values each of so many tuned rules may take."""
    return min(_MOST_A_RULE, int(_MAX_TRIED ** (1 / max(1, num_tuned))))


def confidences(confidence: Floats, count: int) -> list[float]:
    """Thresholds that send on even shares of the rows, from few to nearly all of them."""
    found = np.quantile(confidence, np.linspace(0, 1, count))
    return sorted({float(min(1.0, max(1e-4, round(value, 4)))) for value in found} | {1.0})


def keeps(longest: int, top: int, count: int) -> list[int]:
    """Numbers of items in even ratios, from those that are shown to all that there are."""
    least = min(top, longest)
    return sorted({round(value) for value in np.geomspace(least, longest, count)})


def _single(answers: Answers, rules: Sequence[Rule]) -> tuple[float, tuple[float, ...]]:
    going = np.ones(answers.correct.shape[1], bool)
    right, reached = answers.correct[0].copy(), [1.0]
    for place, (_, confidence) in enumerate(rules):
        if confidence is not None:  # a rule for rankings alone lets all other rows through, as the handler does
            going = going & (answers.confidence[place] < confidence)
        right[going] = answers.correct[place + 1][going]
        reached.append(float(going.mean()))
    return float(right.mean()), tuple(reached)


def _ranked(answers: Answers, rules: Sequence[Rule], top: int) -> tuple[float, tuple[float, ...]]:
    """As the cascade's handler ranks: who went further stands first, then by the last score, then as they came."""
    found, seen = [], np.zeros(len(rules) + 1)
    for rows in answers.lists:
        going, passes = np.arange(len(rows)), np.zeros(len(rows), np.int64)
        score = answers.relevance[0][rows]
        seen[0] += len(rows)
        for place, (keep, _) in enumerate(rules):
            if keep is not None and len(going) > keep:
                going = np.sort(going[_best_first(score[going])[:keep]])
            score = score.copy()
            score[going], passes[going] = answers.relevance[place + 1][rows[going]], place + 1
            seen[place + 1] += len(going)
        order = np.lexsort((np.arange(len(rows)), -score, -passes))
        found.append(_ndcg(answers.gain[rows], order, top))
    return float(np.mean(found)), tuple(float(count) for count in seen / seen[0])


def _best_first(scores: Floats) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")


def _ndcg(gains: Floats, order: NDArray[np.intp], top: int) -> float:
    """Normalised discounted cumulative gain of the first `top`; 1 where no item is worth anything.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques (2002), with log2(1 + rank).
    """
    discount = 1 / np.log2(np.arange(2, min(top, len(gains)) + 2))
    best = float(np.sort(gains)[::-1][: len(discount)] @ discount)
    return float(gains[order][: len(discount)] @ discount) / best if best > 0 else 1.0
