"""Which settings are tried, and which of those measured is best."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from emberline.recipe import Tuned


@dataclass(frozen=True)
class Observed:
    """What clients saw of a server in one settings.

    Attributes:
        failed: answers other than 200, and connections that broke.
    """

    rps: float
    p50_ms: float
    p99_ms: float
    failed: int = 0


@dataclass(frozen=True)
class Trial:
    settings: Tuned
    observed: Observed


def candidates(
    workers: Sequence[int], threads: Sequence[int], batch_sizes: Sequence[int], delays_ms: Sequence[int], cores: int
) -> list[Tuned]:
    """Every combination that makes sense: workers times threads are no more than twice the cores, a batch of one
    never waits for a second.
    """
    found = []
    for num, each, batch, delay in product(workers, threads, batch_sizes, delays_ms):
        if num * each > max(2 * cores, min(workers) * min(threads)) or (batch == 1 and delay > min(delays_ms)):
            continue
        found.append(Tuned(workers=num, threads=each, batch_size=batch, batch_delay_ms=delay))
    return found


def best(trials: Sequence[Trial], p99_ms: float | None) -> Trial | None:
    """The most requests a second among those that failed none and keep the 99th percentile; None where none does.

    Within 2 % of the best, which is noise, the fewest workers times threads win, then the shortest latency.
    """
    fit = [one for one in trials if not one.observed.failed and (p99_ms is None or one.observed.p99_ms <= p99_ms)]
    if not fit:
        return None
    most = max(one.observed.rps for one in fit)
    close = [one for one in fit if one.observed.rps >= 0.98 * most]
    return min(close, key=lambda one: (one.settings.workers * one.settings.threads, one.observed.p99_ms))
