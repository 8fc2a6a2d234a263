"""The running stack: serve, route, dashboard and rollout as processes, restarted when one dies, stopped in order."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import psutil

from emberline import storage
from emberline.errors import EmberlineError, StageFailed
from emberline.process import Child, require_free_port, wait_until
from emberline.runlog import RunLog
from emberline.up.settings import Arguments, Settings
from emberline.up.verbs import start_verb, tail

READY_TIMEOUT_S = 120.0
_RESTART_BACKOFF_S = (1, 2, 5, 10, 30)
_WATCH_EVERY_S = 0.5


@dataclass
class Service:
    """One verb that stays: what it is called with, and the file it writes when it is ready.

    Attributes:
        ready_file: None for a verb that is ready as soon as it runs.
    """

    verb: str
    arguments: Callable[[], Arguments]
    ready_file: Path | None
    child: Child | None = None
    restarts: int = 0
    restart_at: float | None = None


@dataclass
class Stack:
    settings: Settings
    log: RunLog
    services: list[Service] = field(default_factory=list)

    def start(self, service: Service) -> None:
        """Starts a verb and waits until it says that it is ready.

        Raises:
            StageFailed: it died or took longer than two minutes; the end of its log is told.
        """
        log = self.settings.log(service.verb)
        if service.ready_file is not None:
            service.ready_file.unlink(missing_ok=True)
        service.child = start_verb(service.verb, *service.arguments(), log=log)
        if service not in self.services:
            self.services.append(service)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while service.ready_file is not None and not service.ready_file.is_file():
            if service.child.poll() is not None:
                raise StageFailed(
                    service.verb, f"ended before it was ready\n{tail(log)}", hint=f"all of its log: {log}"
                )
            if time.monotonic() > deadline:
                raise StageFailed(
                    service.verb, f"not ready after {READY_TIMEOUT_S:g} s\n{tail(log)}", hint=f"log: {log}"
                )
            time.sleep(0.1)
        self.log.event("ready", verb=service.verb, pid=service.child.pid)

    def watch(self, until: threading.Event) -> None:
        """Restarts whatever dies, with a growing pause, until told to stop."""
        while not until.wait(_WATCH_EVERY_S):
            for service in self.services:
                self._revive(service)

    def _revive(self, service: Service) -> None:
        if service.child is None or service.child.poll() is None:
            return
        now = time.monotonic()
        if service.restart_at is None:
            pause_s = _RESTART_BACKOFF_S[min(service.restarts, len(_RESTART_BACKOFF_S) - 1)]
            service.restart_at = now + pause_s
            self.log.say(f"{service.verb} ended with code {service.child.poll()}; starting it again in {pause_s} s")
        elif now >= service.restart_at:
            service.restarts += 1
            service.restart_at = None
            try:
                self.start(service)
            except StageFailed as error:
                self.log.say(str(error))  # its process has ended: the next round tries again, later

    def stop(self) -> None:
        """Stops in the order that loses nothing: who moves traffic first, who answers last."""
        for service in reversed(self.services):
            if service.child is not None:
                service.child.stop(grace_s=25)


def stack_file(state: Path) -> Path:
    return state / "up.json"


def running(state: Path) -> dict[str, Any] | None:
    """What `state/up.json` says, if the process that wrote it still lives."""
    path = stack_file(state)
    if not path.is_file():
        return None
    facts: dict[str, Any] = orjson.loads(path.read_bytes())
    if not psutil.pid_exists(facts["pid"]) or psutil.Process(facts["pid"]).create_time() != facts["created"]:
        return None
    return facts


def require_free_ports(settings: Settings) -> None:
    """Raises when somebody listens on a port that the stack will need."""
    for port in (settings.port, settings.dashboard_port, *range(settings.serve_port, settings.serve_port + 4)):
        require_free_port(port, "emberline up")


@contextmanager
def claim(settings: Settings) -> Iterator[None]:
    """Makes sure that ports are free and no other stack runs from this state folder.

    Raises:
        EmberlineError: a stack runs already, or somebody listens on a port.
    """
    if (facts := running(settings.state)) is not None:
        raise EmberlineError(
            f"a stack is up already (pid {facts['pid']})", place=settings.state, hint="emberline down stops it"
        )
    require_free_ports(settings)
    try:
        yield
    finally:
        stack_file(settings.state).unlink(missing_ok=True)


def publish(settings: Settings, **facts: object) -> None:
    """Writes `state/up.json`: the stack is ready."""
    me = psutil.Process()
    content = {"pid": me.pid, "created": me.create_time(), "address": f"http://127.0.0.1:{settings.port}", **facts}
    storage.write_bytes(stack_file(settings.state), orjson.dumps(content, option=orjson.OPT_INDENT_2))


@contextmanager
def terminable() -> Iterator[None]:
    """Has SIGTERM and Ctrl-C raise KeyboardInterrupt, so that children are stopped on the way out.

    Ctrl-C as well: a shell starts background jobs with SIGINT ignored, and Python leaves it so.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, instead of ending this process at once."""
    event = threading.Event()
    previous = {n: signal.signal(n, lambda *_: event.set()) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_running(state: Path, timeout_s: float = 60.0) -> bool:
    """Stops the stack that runs from a state folder; False when there is none."""
    facts = running(state)
    if facts is None:
        return False
    pid = int(facts["pid"])
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: _has_ended(pid), timeout_s, f"the end of the stack, pid {pid},")
    return True


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to read its exit code."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
