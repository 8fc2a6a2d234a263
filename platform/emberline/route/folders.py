"""The folders of a router, held for one router at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from emberline import process
from emberline.errors import EmberlineError
from emberline.route.envoy import holds_open

_PREDECESSOR_S = 15.0


@dataclass(frozen=True)
class Folders:
    """Where a router reads and writes.

    Attributes:
        generation_s: age at which a log's generation is closed; raw unit ids live on disk no longer than about this.
        generation_bytes: size at which it is closed.
        keep_s: rows that arrived longer ago are deleted; None keeps all.
        keep_samples_s: disagreements kept for labelling are deleted when they are this old.
        sketches: whether sketches are kept for live views.
        api_keys: file that keys are read from, again at a restart; None where no key is asked for.
    """

    experiments: Path
    data: Path
    state: Path
    generation_s: float = 60.0
    generation_bytes: int = 16 << 20
    keep_s: float | None = None
    keep_samples_s: float = 0.0
    sketches: bool = False
    api_keys: Path | None = None

    @property
    def spool(self) -> Path:
        return self.data.absolute() / "spool"

    @property
    def envoy(self) -> Path:
        return self.state.absolute() / "envoy"

    @property
    def paper(self) -> Path:
        return self.state / "route.json"


@contextmanager
def sole_owner(folders: Folders) -> Iterator[None]:
    """Holds the spool and the state folder for this router alone, after a killed predecessor's Envoy has gone.

    Raises:
        EmberlineError: another router uses one of them.
    """
    with _locked(folders.spool, "--data"), _locked(folders.envoy, "--state"):
        _await_predecessor(folders)
        yield


@contextmanager
def _locked(folder: Path, option: str) -> Iterator[None]:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmberlineError(
                "another router writes there", place=folder, hint=f"stop it, or choose another {option}"
            ) from error
        yield


def _await_predecessor(folders: Folders) -> None:
    """A router that was killed leaves its paper, and for a few seconds its Envoy with the log and the port."""
    if not folders.paper.is_file():
        return
    facts = orjson.loads(folders.paper.read_bytes())
    logs = list(folders.spool.glob("exposures-*.log"))

    def gone() -> bool:
        # that number may be another program's by now
        return not any(holds_open(int(pid), path) for pid in facts["envoy_pids"] for path in logs)

    process.wait_until(gone, _PREDECESSOR_S, "the killed router's Envoy ends")
    folders.paper.unlink(missing_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file that its owner alone may read."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    partial.rename(path)
