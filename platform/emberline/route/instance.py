"""One of the Envoys that share the router's port: its admin address, its log, and its restarts.

A dead one is started again, at once at first, then with growing pauses. A hot restart starts a successor that takes the
listening sockets over; the predecessor answers what it has and ends, both writing to the same log meanwhile.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from emberline import process
from emberline.errors import StageFailed
from emberline.route.envoy import Admin, Envoy
from emberline.route.settings import Address
from emberline.route.spool import Spool

_BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 30.0
_TAKE_OVER_S = 20.0


class Instance:
    """Not for use from several threads, but for `has_open`.

    Args:
        number: among those of the router, from 0 on.
    """

    def __init__(self, number: int, spool: Spool, state: Path, admin_port: int, say: Callable[[str], None]) -> None:
        self.number, self._spool, self._say = number, spool, say
        self.admin = Admin(Address("127.0.0.1", admin_port or process.free_port()))
        self.live_log = spool.folder / f"exposures-{number}.live"
        self.bootstrap = state / "envoy" / f"bootstrap-{number}.json"
        self.output = state / "envoy.log"
        self._beginning = threading.Lock()
        self._generation = Path()
        self._began = 0.0
        self._envoys: list[Envoy] = []  # the newest last; those before it end by themselves
        self._epoch = 0
        self._deaths, self._started, self._again_at = 0, 0.0, 0.0

    @property
    def pid(self) -> int:
        return self._envoys[-1].pid

    def start(self) -> None:
        """Starts Envoy with a new generation of the log.

        A line that the last one was killed in stays the last of its generation.
        """
        self.stop()
        self.begin_generation()
        self._epoch, self._started = 0, time.monotonic()
        self._envoys = [self._run()]

    def running(self) -> bool:
        return bool(self._envoys) and self._envoys[-1].running()

    def exit_code(self) -> int | None:
        return self._envoys[-1].exit_code() if self._envoys else None

    def revive(self) -> bool:
        """Starts a dead Envoy again when its time has come; True when it did."""
        now = time.monotonic()
        if self.running():
            self._again_at = 0.0
            return False
        if not self._again_at:
            self._deaths = 0 if now - self._started > _STEADY_S else self._deaths
            wait_s = _BACKOFF_S[min(self._deaths, len(_BACKOFF_S) - 1)]
            self._again_at = now + wait_s
            self._say(f"Envoy ended with code {self.exit_code()}; starting it again in {wait_s:g} s")
        if now < self._again_at:
            return False
        self._deaths += 1
        self._again_at = 0.0
        self.start()
        return True

    def restart_hot(self) -> None:
        """Starts a successor and waits until it has taken the sockets over; no connection is refused meanwhile.

        Raises:
            StageFailed: it did not; the predecessor goes on.
        """
        before = self.pid
        self._epoch += 1
        successor = self._run()

        def in_charge() -> bool:
            if not successor.running():
                raise StageFailed("route", f"the new Envoy ended with code {successor.exit_code()}; the old one stays")
            return self.admin.epoch() == self._epoch

        try:
            process.wait_until(in_charge, _TAKE_OVER_S, "a hot restart")
        except StageFailed:
            successor.stop()
            self._epoch -= 1
            raise
        self._envoys = [*(one for one in self._envoys if one.running()), successor]
        self._say(f"Envoy {successor.pid} has taken over from {before}")

    def begin_generation(self) -> None:
        """Points the name that Envoy writes to at a new file."""
        with self._beginning:  # the shipper must not meet a file that is nobody's yet
            self._generation, self._began = self._spool.begin(), time.monotonic()
        link = self.live_log.with_suffix(".partial")
        link.unlink(missing_ok=True)
        link.symlink_to(self._generation.name)
        link.rename(self.live_log)

    def rotate_when_due(self, generation_s: float, generation_bytes: int) -> None:
        size = self._generation.stat().st_size
        old = time.monotonic() - self._began > generation_s
        if (old and size) or size > generation_bytes:
            self.begin_generation()
            # should Envoy be gone just now, its successor opens the new file anyway
            self.admin.order("/reopen_logs")

    def has_open(self, path: Path, *, written: bool) -> bool:
        """Whether somebody may still write to a generation.

        Args:
            written: nobody will begin to any more.
        """
        with self._beginning:
            in_use = path == self._generation and not written
        return in_use or any(envoy.has_open(path) for envoy in self._envoys)

    def stop(self) -> None:
        for envoy in self._envoys:
            envoy.stop()

    def close(self) -> None:
        self.admin.close()

    def _run(self) -> Envoy:
        # the admin port is this instance's own on the machine, so it names what predecessor and successor share
        return Envoy(self.bootstrap, self.output, base_id=self.admin.address.port, epoch=self._epoch)
