"""Settings of the worker process that TorchServe started for this model: what it logs, and how many threads it takes.

With TorchServe's own settings a third of a worker's time goes into log lines about each request. Warnings, errors and
tracebacks are kept.
"""

import logging
import os

import ember_packages

LOG_LEVEL = "EMBERLINE_WORKER_LOG_LEVEL"


def settle() -> None:
    """Quiets the loggers and pins the threads of PyTorch: to one a worker, unless the environment says more.

    Raises:
        ValueError: the log level is none that Python knows.
    """
    logging.getLogger().setLevel(os.environ.get(LOG_LEVEL, "WARNING"))
    if not os.environ.get(ember_packages.THREADS_VARIABLE):
        ember_packages.set_threads(1)
