"""Reading rows again that a router replaced, merged or removed while they were read.

A router replaces its youngest files while they grow. DuckDB may open a file more than once for one query, so it meets
the footer of one file and the rows of another under the same name, and calls them corrupted.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb

from emberline.errors import EmberlineError

T = TypeVar("T")

_TRIES = 6
_HINT = (
    "emberline reads again what changed meanwhile, so a file that names itself here is broken or changes all the time"
)


def read_rows(data: Path, read: Callable[[], T]) -> T:
    """What `read` returns; where it fails and files under `data` changed meanwhile, it is called again.

    Raises:
        EmberlineError: a file is broken, or files changed during each of some tries.
    """
    tries_left = _TRIES
    while True:
        before, tries_left = _files(data), tries_left - 1
        try:
            return read()
        except (duckdb.Error, FileNotFoundError) as error:
            if not tries_left or _files(data) == before:
                raise EmberlineError(f"rows cannot be read: {error}", place=data, hint=_HINT) from error


def _files(data: Path) -> dict[Path, tuple[int, int, int]]:
    """Inode, time of the last change in nanoseconds and size of each file."""
    found = {}
    for path in data.glob("**/*.parquet"):
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed, so it is not there
            status = path.stat()
            found[path] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found
