"""Semaphores that killed launchers left in shared memory.

torch's elastic agent makes some for its workers (`/dev/shm/sem.mp-…`). Python's resource tracker removes them when all
who used them are gone, unless it was killed together with them, as a container's end by SIGKILL does it.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

_SHM = Path("/dev/shm")  # noqa: S108 - shared memory is what this is about
_AGE_S = 600.0  # a younger one may belong to a process that is starting


def sweep_semaphores(folder: Path = _SHM, age_s: float = _AGE_S) -> list[str]:
    """Removes this user's semaphores of Python that no process has open; returns their names.

    Processes of other containers cannot be seen; where they share this folder, the age keeps what they have just made.
    """
    stale = {_inode(path): path for path in folder.glob("sem.mp-*") if _is_old(path, age_s)}
    for maps in Path("/proc").glob("[0-9]*/maps") if stale else ():
        with suppress(OSError):  # it has ended, or is another user's, whose semaphores are not ours
            for line in maps.read_text().splitlines():
                # by inode, since who made a semaphore has it mapped under a name that it had before
                stale.pop(int(line.split(maxsplit=5)[4]), None)
    for path in stale.values():
        path.unlink(missing_ok=True)
    return sorted(map(str, stale.values()))


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


def _is_old(path: Path, age_s: float) -> bool:
    with suppress(OSError):  # gone meanwhile
        facts = path.stat()
        return facts.st_uid == os.getuid() and facts.st_mtime <= time.time() - age_s
    return False
