"""The folders of a router, held for one router at a time."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from emberline import process
from emberline.errors import EmberlineError, InvalidOption
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


def find_experiments(named: Path | None) -> Path:
    """The folder of experiments: the one that was named, else the one where `up` puts them, made where it is not there.

    Raises:
        InvalidOption: the named one is not there; a router over nothing would move all traffic to the defaults.
    """
    if named is None:
        usual = Path("state/experiments")
        usual.mkdir(parents=True, exist_ok=True)
        return usual
    if not named.is_dir():
        hint = "make it first: an empty one has every model answer with its --default"
        raise InvalidOption("route", "--experiments", str(named), "a folder that is there", hint=hint)
    return named


@contextmanager
def sole_owner(folders: Folders, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the spool and the state folder for this router alone, after a killed predecessor's Envoy has gone.

    Args:
        say: told of a damaged paper, which is set aside.

    Raises:
        EmberlineError: another router uses one of them.
    """
    with _locked(folders.spool, "--data"), _locked(folders.envoy, "--state"):
        _await_predecessor(folders, say)
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


def _await_predecessor(folders: Folders, say: Callable[[str], None]) -> None:
    """A router that was killed leaves its paper, and for a few seconds its Envoy with the log and the port."""
    if not folders.paper.is_file():
        return
    logs = list(folders.spool.glob("exposures-*.log"))
    known = _envoy_pids(folders.paper)
    if known is None:
        aside = folders.paper.with_suffix(".damaged")
        folders.paper.rename(aside)
        say(
            f"warning: {folders.paper} is damaged and was set aside as {aside.name}; "
            "any program that has the logs open is awaited"
        )

    def gone() -> bool:
        pids = known if known is not None else [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        # that number may be another program's by now
        return not any(holds_open(pid, path) for pid in pids for path in logs)

    process.wait_until(gone, _PREDECESSOR_S, "the killed router's Envoy ends")
    folders.paper.unlink(missing_ok=True)


def _envoy_pids(paper: Path) -> list[int] | None:
    """None of a paper that a crash or a hand has damaged."""
    try:
        return [int(pid) for pid in orjson.loads(paper.read_bytes())["envoy_pids"]]
    except (ValueError, KeyError, TypeError):
        return None


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file that its owner alone may read."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    partial.rename(path)
