"""A fence around a run's folder: of two worlds that both think they train it, the older one cannot commit.

Each world takes the next generation number when it starts, and every commit is made under a lock that the folder itself
holds, after reading the number again. The lock is held for a rename, not while data are written.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emberline import storage
from emberline.errors import EmberlineError

_NUMBER = "generation"
_LOCK = ".lock"


class Fenced(EmberlineError):
    """A newer world trains this run; this one must end and may write nothing more."""

    def __init__(self, folder: Path, own: int, newest: int) -> None:
        super().__init__(
            f"generation {own} was overtaken by generation {newest}, which trains this run now",
            place=folder,
            hint="two launchers were started for one run, or a cut-off node came back; this one has ended",
        )


def claim_generation(folder: Path) -> int:
    """Takes the next generation number; from now on older ones are fenced out."""
    with _locked(folder):
        number = newest_generation(folder) + 1
        storage.write_bytes(folder / _NUMBER, str(number).encode())
        return number


def newest_generation(folder: Path) -> int:
    path = folder / _NUMBER
    return int(path.read_text()) if path.is_file() else 0


@contextmanager
def commit(folder: Path, generation: int) -> Iterator[None]:
    """Holds the fence for one commit.

    Raises:
        Fenced: a newer world has started.
    """
    with _locked(folder):
        newest = newest_generation(folder)
        if newest != generation:
            raise Fenced(folder, generation, newest)
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
