"""The process that TorchServe's workers are forked from, seen from the supervisor: started, watched, stopped."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emberline import process, storage

# what every worker loads before its handler; imported once, by name, so that nothing of `serve` imports torch itself
MODULES = (
    "torch",
    "numpy",
    "orjson",
    "PIL.Image",
    "ts.model_loader",
    "ts.service",
    "ts.metrics.metric_cache_yaml_impl",
)
_FOLDER = Path(__file__).parent
_EXECUTABLE = 0o700


@dataclass(frozen=True)
class Paths:
    """Where an instance keeps what its workers are made by."""

    work: Path

    @property
    def socket(self) -> Path:
        return self.work / "temp" / ".prefork"

    @property
    def pages(self) -> Path:
        return self.work / "pages"

    @property
    def python(self) -> Path:
        """What TorchServe is told to be Python."""
        return self.work / "python"


def start(paths: Paths, env: Mapping[str, str], log: Path) -> process.Child:
    """Starts the process that forks; workers may be asked of it at once, and come when it has loaded."""
    paths.pages.mkdir(exist_ok=True)
    paths.socket.unlink(missing_ok=True)
    stand_in = [sys.executable, "-I", "-S", _FOLDER / "standin.py", paths.socket, sys.executable]
    line = " ".join(shlex.quote(str(part)) for part in stand_in)
    storage.write_bytes(paths.python, f'#!/bin/sh\nexec {line} "$@"\n'.encode())
    paths.python.chmod(_EXECUTABLE)
    return process.start(
        [sys.executable, "-I", _FOLDER / "prefork.py", paths.socket, paths.pages, *MODULES],
        name="workers' parent",
        cwd=paths.work / "cwd",
        env=env,
        log=log,
        grace_s=2.0,
    )
