"""What a request costs with each version: its workers' processor and GPU time, measured as it competes, and its price.

Rollout reads the workers' clocks and the routers' counters of requests, copies to a shadow included, since workers work
for those as well. A worker that is new counts from when it was first seen: loading a model is no request's cost. The
file belongs to rollout, which writes it; reports read it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import orjson

from emberline import storage
from emberline.compare.assessment import Assessment, CostResult, MetricResult
from emberline.compare.window import Number, OfWindow, counted_since, read_of_window, variant_of
from emberline.experiment import Experiment, Price

_HOUR_S = 3600
_ENOUGH = 100  # requests of a variant, before anything is said of their cost


class Usage(OfWindow):
    """Of one configuration.

    Attributes:
        clocks: processor seconds of each worker as last read, by `variant/worker`.
        counters: requests by variant (and process of the router) as last read.
        gpu_clocks: seconds in which each worker kept its GPU busy, as last read; empty without GPUs, and None once
            their driver did not tell, so that neither GPU time nor prices are known.
        cpu_s: processor seconds by variant since the step began.
        gpu_s: GPU seconds likewise; of variants with a GPU alone.
        requests: by variant, meanwhile.
    """

    clocks: dict[str, float]
    counters: dict[str, int]
    gpu_clocks: dict[str, float] | None = {}
    cpu_s: dict[str, float] = {}
    gpu_s: dict[str, float] = {}
    requests: dict[str, int] = {}

    @classmethod
    def begin(
        cls,
        config_version: str,
        clocks: Mapping[str, float],
        counters: Mapping[str, int],
        gpu_clocks: Mapping[str, float] | None,
    ) -> Self:
        return cls(
            config_version=config_version,
            clocks=dict(clocks),
            counters=dict(counters),
            gpu_clocks=None if gpu_clocks is None else dict(gpu_clocks),
        )

    def read(
        self, clocks: Mapping[str, float], counters: Mapping[str, int], gpu_clocks: Mapping[str, float] | None
    ) -> Self:
        """After another reading; `gpu_clocks` is None where the driver did not tell."""
        gpu_now, gpu_s = None, dict[str, float]()
        if self.gpu_clocks is not None and gpu_clocks is not None:
            gpu_now, gpu_s = dict(gpu_clocks), _added(self.gpu_s, self.gpu_clocks, gpu_clocks)
        return type(self)(
            config_version=self.config_version,
            clocks=dict(clocks),
            counters=dict(counters),
            gpu_clocks=gpu_now,
            cpu_s=_added(self.cpu_s, self.clocks, clocks),
            gpu_s=gpu_s,
            requests=_added(self.requests, self.counters, counters),
        )


def _added(sums: Mapping[str, Number], before: Mapping[str, Number], now: Mapping[str, Number]) -> dict[str, Number]:
    """Sums by variant with what its clocks or counters went on by; a new one counts from when it was first seen."""
    added = dict(sums)
    for key, value in now.items():
        variant, more = variant_of(key), counted_since(value, before.get(key, value))
        added[variant] = added[variant] + more if variant in added else more
    return added


def costs_of(experiment: Experiment, usage: Usage | None, primary: MetricResult | None) -> tuple[CostResult, ...]:
    """Each variant's cost, treatment first; those with too few requests are left out."""
    if usage is None:
        return ()
    price = experiment.spec.price
    found = []
    for variant in experiment.spec.variants:
        requests = usage.requests.get(variant.name, 0)
        if requests < _ENOUGH:
            continue
        cpu_s = usage.cpu_s.get(variant.name, 0.0) / requests
        gpu_s = usage.gpu_s[variant.name] / requests if variant.name in usage.gpu_s else None
        each = None if price is None or usage.gpu_clocks is None else _price_of(price, cpu_s, gpu_s)
        value = None
        if primary is not None and primary.metric == experiment.spec.primary.metric:
            value = primary.control if variant.control else primary.treatment
        found.append(
            CostResult(
                variant=variant.name,
                requests=requests,
                cpu_ms=cpu_s * 1e3,
                gpu_ms=None if gpu_s is None else gpu_s * 1e3,
                price_per_million=None if each is None else each * 1e6,
                value_per_price=value / each if value is not None and each else None,
            )
        )
    return tuple(found)


def _price_of(price: Price, cpu_s: float, gpu_s: float | None) -> float | None:
    """Of so much processor and GPU time; None where the GPU's has no price."""
    cpu = cpu_s / _HOUR_S * price.cpu_hour
    if gpu_s is None:
        return cpu
    return None if price.gpu_hour is None else cpu + gpu_s / _HOUR_S * price.gpu_hour


def spent_text(cost: CostResult) -> str:
    """What one request takes."""
    gpu = "" if cost.gpu_ms is None else f" and {cost.gpu_ms:.3g} ms of GPU time"
    return f"{cost.cpu_ms:.3g} ms of processor time{gpu} a request"


def with_costs(look: Assessment, experiment: Experiment, usage: Usage | None) -> Assessment:
    """The assessment with what was measured; costs decide nothing."""
    primary = look.metrics[0] if look.metrics else None
    return look.model_copy(update={"costs": costs_of(experiment, usage, primary)})


def saving_text(costs: tuple[CostResult, ...]) -> str:
    """What the treatment would save, in a sentence; empty unless both are known."""
    if len(costs) < 2 or not costs[1].cpu_ms:  # noqa: PLR2004 - treatment and control
        return ""
    treatment, control = costs
    share = 1 - treatment.cpu_ms / control.cpu_ms
    what = "would save" if share >= 0 else "would cost more:"
    text = f"{treatment.variant} {what} {abs(share):.0%} of the processor time"
    if treatment.gpu_ms is not None and control.gpu_ms:
        gpu = 1 - treatment.gpu_ms / control.gpu_ms
        text += f", {abs(gpu):.0%} {'less' if gpu >= 0 else 'more'} of the GPU's"
    if treatment.price_per_million is not None and control.price_per_million is not None:
        text += f", {abs(control.price_per_million - treatment.price_per_million):.3g} a million requests"
    return text


def usage_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.costs.json"


def read_usage(folder: Path, experiment: Experiment) -> Usage | None:
    """Of the experiment's window; None where nothing was measured in it."""
    return read_of_window(usage_path(folder, experiment.name), Usage, experiment)


def write_usage(folder: Path, name: str, usage: Usage) -> None:
    storage.write_bytes(usage_path(folder, name), orjson.dumps(usage.model_dump()))
