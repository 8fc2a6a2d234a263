"""Processor and GPU time of the workers of each variant, where TorchServe runs on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from emberline.experiment import Experiment
from emberline.serve import management

_HERE = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Clocks:
    """What workers have spent.

    Attributes:
        cpu_s: processor seconds by `variant/worker`.
        on_gpu: process ids of those that TorchServe gave a GPU, by `variant/worker`.
    """

    cpu_s: Mapping[str, float]
    on_gpu: Mapping[str, int]


def read_clocks(address: str, experiment: Experiment) -> Clocks | None:
    """Of the workers of both variants; None where they tell nothing of a variant.

    So it is of workers on another machine, whose clocks nobody reads here, and of those that both variants share.

    Args:
        address: TorchServe's management, HOST:PORT.
    """
    host = address.removeprefix("http://").rpartition(":")[0]
    if host not in _HERE or experiment.spec.treatment.version == experiment.spec.control.version:
        return None
    cpu_s: dict[str, float] = {}
    on_gpu: dict[str, int] = {}
    for variant in experiment.spec.variants:
        described = management.describe(address, experiment.spec.model, variant.version)
        for worker in described.workers if described is not None else ():
            try:
                process = psutil.Process(worker.pid)
                times = process.cpu_times()
                # a number may be another process's later
                key = f"{variant.name}/{worker.pid}-{process.create_time():.0f}"
            except psutil.Error:  # it died, or TorchServe has not started it yet
                continue
            cpu_s[key] = times.user + times.system
            if worker.gpu:
                on_gpu[key] = worker.pid
    return Clocks(cpu_s, on_gpu)
