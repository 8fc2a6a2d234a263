"""A thread that keeps the router's folders of rows in order, once a minute: merges little files, deletes old ones."""

import threading
from collections.abc import Callable
from pathlib import Path

from emberline.errors import EmberlineError
from emberline.route.spool import Spool
from emberline.route.tidy import compact, finish, forget

_EVERY_S = 60.0


class Upkeep:
    """Runs until stopped.

    Args:
        keep_s: rows older than this are deleted; None keeps all.
    """

    def __init__(
        self, data: Path, spools: tuple[Spool, ...], keep_s: float | None, complain: Callable[[str], None]
    ) -> None:
        self._data, self._spools, self._keep_s, self._complain = data, spools, keep_s, complain
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def round(self) -> None:
        """What is due now."""
        for spool in self._spools:
            folder = self._data / spool.stream
            compact(folder, [path.stem for path in spool.generations()])
            if self._keep_s is not None:
                forget(folder, self._keep_s)

    def _run(self) -> None:
        first = True
        while not self._stopping.wait(0.0 if first else _EVERY_S):
            try:
                if first:
                    for spool in self._spools:
                        finish(self._data / spool.stream)
                    first = False
                self.round()
            except (OSError, EmberlineError) as error:  # disk full: little files do, until there is room
                self._complain(f"rows were not put in order, will be tried again: {error}")
                self._stopping.wait(_EVERY_S)
