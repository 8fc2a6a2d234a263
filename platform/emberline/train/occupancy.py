"""One launcher a run: a second one is refused before it starts anything, unless it is another node of the first one's.

The lock ends with its holder, however that ends. It guards against a mistake, early and in clear words; what guards
the run's papers, whoever writes from wherever, is the fence.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from emberline.errors import EmberlineError

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def occupy(path: Path, rendezvous: str, endpoint: str = "") -> Iterator[None]:
    """Holds a run for the launchers, or workers, of one rendezvous.

    Args:
        path: the run's folder, which need not exist.
        rendezvous: the job's name at the store.
        endpoint: the store; empty where it is not known.

    Raises:
        EmberlineError: others train this run, or its folder is read-only.
    """
    own = {"rendezvous": rendezvous, "endpoint": endpoint, "pid": os.getpid(), "host": socket.gethostname()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f".{path.name}.launcher"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        fact = f"the run's folder cannot be written: {(error.strerror or str(error)).lower()}"
        hint = "--runs names another folder for runs; what is in this one stays as it is"
        raise EmberlineError(fact, place=path, hint=hint) from error
    try:
        _hold(descriptor, own, path)
        yield
    finally:
        os.close(descriptor)


def _hold(descriptor: int, own: dict[str, object], path: Path) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody holds it, or is about to say that he does
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        else:
            content = orjson.dumps(own)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content, 0)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        # going from one kind of lock to the other, somebody else may have been let in: what is written decides
        other = orjson.loads(os.pread(descriptor, 1 << 16, 0) or b"{}")
        if _same(own, other):
            return
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        if other and _held(descriptor):
            raise EmberlineError(
                f"another launcher trains this run: pid {other['pid']} on {other['host']}, "
                f"rendezvous {other['rendezvous']}",
                place=path,
                hint="wait for it or stop it; to join it as another node, "
                "give the same --rdzv-endpoint and --rdzv-id; for a run beside it, --set run=NAME",
            )


def _held(descriptor: int) -> bool:
    """Whether somebody still holds it; if not, it is free to be taken."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _same(one: dict[str, object], other: dict[str, object]) -> bool:
    """Whether both belong to one rendezvous, as far as both say."""
    ends = {one.get("endpoint"), other.get("endpoint")} - {"", None}
    return one.get("rendezvous") == other.get("rendezvous") and len(ends) < 2  # noqa: PLR2004 - two that differ
