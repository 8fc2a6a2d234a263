"""The launcher's own rendezvous store: `emberline rendezvous` as a process of its own, started again when it ends."""

import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from emberline import process
from emberline.errors import StageFailed

_HOST = "127.0.0.1"
_TRIES = 3
_START_S = 60.0
_WATCH_S = 0.1
_GRACE_S = 2.0


class _Ended(StageFailed):
    """The store's process ended before it listened."""


class LocalStore:
    """A store for as long as the block runs, always at the same port; `store` has how its clients bear the gap.

    Args:
        meanwhile: done while its process starts.

    Raises:
        StageFailed: it ended three times before it listened, or did not listen in time.
    """

    def __init__(self, *, meanwhile: Callable[[], None]) -> None:
        self._meanwhile: Callable[[], None] | None = meanwhile
        self._port = 0
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="store's watcher", daemon=True)

    @property
    def endpoint(self) -> str:
        return f"{_HOST}:{self._port}"

    def __enter__(self) -> Self:
        for _ in range(_TRIES - 1):  # somebody else may take the free port in between
            with suppress(_Ended):
                self._start_first()
                break
        else:
            self._start_first()
        self._watcher.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _: BaseException | None, _at: TracebackType | None) -> None:
        self._stopped.set()
        self._watcher.join()
        self._child.stop(_GRACE_S)

    def _start_first(self) -> None:
        self._port = process.free_port()
        self._child = self._start()
        try:
            if self._meanwhile is not None:
                self._meanwhile()
            process.wait_until(self._listens, _START_S, "the rendezvous store")
        except BaseException:
            self._child.stop(0)  # it holds nothing yet, and would load torch to its end before it listens to SIGTERM
            raise

    def _start(self) -> process.Child:
        command = [sys.executable, "-m", "emberline.cli", "rendezvous", "--host", _HOST, "--port", str(self._port)]
        return process.start(command, name="rendezvous store", log=Path(os.devnull), grace_s=1.0)

    def _listens(self) -> bool:
        if (code := self._child.poll()) is not None:
            raise _Ended("rendezvous store", f"ended with code {code}", hint="emberline rendezvous shows why")
        with socket.socket() as probe:
            return probe.connect_ex((_HOST, self._port)) == 0

    def _watch(self) -> None:
        """It watches its own answering process; this watches it. A port taken in between is tried again."""
        while not self._stopped.wait(_WATCH_S):
            if self._child.poll() is not None:
                self._child.stop(_GRACE_S)
                self._child = self._start()
