"""Settings of the worker process that TorchServe started for this model: what it logs, its threads and its GPU.

With TorchServe's own settings a third of a worker's time goes into log lines about each request. Warnings, errors and
tracebacks are kept.
"""

import logging
import os

import ember_packages
import torch
from ember_backends import DEVICE_VARIABLE

LOG_LEVEL = "EMBERLINE_WORKER_LOG_LEVEL"

DEVICES = "EMBERLINE_DEVICES"


def settle(gpu_id: int | None = None) -> None:
    """Quiets the loggers and pins the threads of PyTorch: to one a worker, unless the environment says more.

    Args:
        gpu_id: the GPU that TorchServe gave this worker, among those it sees. It is used where `EMBERLINE_DEVICES` says
            that GPUs are wanted: elsewhere the packages run on the CPU, where they were measured.

    Raises:
        ValueError: the log level is none that Python knows.
        RuntimeError: a GPU is wanted and there is none.
    """
    if os.environ.get(DEVICES):
        if gpu_id is None or not torch.cuda.is_available():
            wanted = os.environ[DEVICES]
            raise RuntimeError(f"serve.devices is {wanted}; torch {torch.__version__} finds no GPU, got {gpu_id}")
        os.environ[DEVICE_VARIABLE] = f"cuda:{gpu_id}"
    logging.getLogger().setLevel(os.environ.get(LOG_LEVEL, "WARNING"))
    if not os.environ.get(ember_packages.THREADS_VARIABLE):
        ember_packages.set_threads(1)
