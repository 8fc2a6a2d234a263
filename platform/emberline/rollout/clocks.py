"""Processor time of the workers of each variant, where TorchServe runs on this machine."""

import psutil

from emberline.experiment import Experiment
from emberline.serve import management

_HERE = ("127.0.0.1", "localhost", "[::1]")


def read_clocks(address: str, experiment: Experiment) -> dict[str, float] | None:
    """Seconds by `variant/worker`; None where they tell nothing of a variant.

    So it is of workers on another machine, whose clocks nobody reads here, and of those that both variants share.

    Args:
        address: TorchServe's management, HOST:PORT.
    """
    host = address.removeprefix("http://").rpartition(":")[0]
    if host not in _HERE or experiment.spec.treatment.version == experiment.spec.control.version:
        return None
    clocks: dict[str, float] = {}
    for variant in experiment.spec.variants:
        described = management.describe(address, experiment.spec.model, variant.version)
        for worker in described.workers if described is not None else ():
            try:
                process = psutil.Process(worker.pid)
                times = process.cpu_times()
                # a number may be another process's later
                clocks[f"{variant.name}/{worker.pid}-{process.create_time():.0f}"] = times.user + times.system
            except psutil.Error:  # it died, or TorchServe has not started it yet
                continue
    return clocks
