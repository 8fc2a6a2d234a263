"""The process that TorchServe's workers are forked from, seen from the supervisor: started, watched, stopped."""

import shlex
import sys
from collections.abc import Mapping, Sequence
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
# longer than it takes to see that the parent has died and to start another
_WAIT_S = 10.0


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


def standin_command(paths: Paths, *, wait_s: float = _WAIT_S) -> list[str | Path]:
    """What stands in for Python, before the arguments that Python would get."""
    return [sys.executable, "-I", "-S", _FOLDER / "standin.py", paths.socket, str(wait_s), sys.executable]


def start(paths: Paths, env: Mapping[str, str], log: Path, *, modules: Sequence[str] = MODULES) -> process.Child:
    """Starts the process that forks; workers may be asked of it at once, and come when it has loaded."""
    paths.pages.mkdir(exist_ok=True)
    paths.socket.unlink(missing_ok=True)
    line = " ".join(shlex.quote(str(part)) for part in standin_command(paths))
    storage.write_bytes(paths.python, f'#!/bin/sh\nexec {line} "$@"\n'.encode())
    paths.python.chmod(_EXECUTABLE)
    return process.start(
        [sys.executable, "-I", _FOLDER / "prefork.py", paths.socket, paths.pages, *modules],
        name="workers' parent",
        cwd=paths.work / "cwd",
        env=env,
        log=log,
        grace_s=2.0,
    )
