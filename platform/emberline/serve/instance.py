"""The private folder of one running instance, and the removal of those that died without cleaning up.

Its path is short because worker sockets live in it (a socket's path has 107 characters at most), and it is closed to
other users because what was verified there is what gets executed.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from emberline.errors import EmberlineError

_LOCK = "lock"


@contextmanager
def private_folder(root: Path | None = None) -> Iterator[Path]:
    """A new folder with `store`, `temp`, `cwd` and `logs` in it, removed at the end; sweeps folders of the dead first.

    An instance holds a lock on its folder while it lives, which the kernel lets go however it dies.
    """
    base = root or Path(tempfile.gettempdir()) / f"emberline-serve-{os.getuid()}"
    _make_private(base)
    with (base / _LOCK).open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # making and sweeping exclude each other
        sweep(base)
        folder = Path(tempfile.mkdtemp(prefix="", dir=base))
        for name in ("store", "temp", "cwd", "logs"):
            (folder / name).mkdir(mode=0o700)
        held = (folder / _LOCK).open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()


def sweep(base: Path) -> list[Path]:
    """Removes the folders whose owner is gone; returns them."""
    gone = [folder for folder in base.iterdir() if folder.is_dir() and not _is_held(folder)]
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return gone


@contextmanager
def sole_owner(state: Path) -> Iterator[IO[str]]:
    """Holds a state folder for one `serve` at a time.

    Raises:
        EmberlineError: another one that runs has it.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "serve.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise EmberlineError(
                f"another `emberline serve` (process {lock.read().strip() or 'unknown'}) uses this folder",
                place=state,
                hint="stop it, or give this one a --state of its own",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _is_held(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _make_private(base: Path) -> None:
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = base.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise EmberlineError(
            "this is no folder of this user alone; what is verified there gets executed",
            place=base,
            hint="remove it, or set TMPDIR to a folder of your own",
        )
