"""`emberline serve`: one TorchServe with verified archives, from the first check to the last child gone."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from emberline import process, storage
from emberline.errors import InvalidCombination
from emberline.recipe import Serve
from emberline.runlog import RunLog, warn
from emberline.serve import health, instance, torchserve
from emberline.serve.archives import Admitted, admit, find_archives
from emberline.serve.config import Ports
from emberline.serve.status import Board
from emberline.serve.supervisor import Supervisor

STATE_FILE = "serve.json"
_LOOPBACK = ("127.0.0.1", "localhost")
_OPTIONS = {
    "inference": "--port",
    "management": "--management-port",
    "metrics": "--metrics-port",
    "health": "--health-port",
}


@dataclass(frozen=True)
class Settings:
    """What `serve` is asked to do.

    Attributes:
        archives: the archives to serve; none means all of `store`.
        host: of the inference API alone; everything else stays on loopback.
        ports: 0 picks a free one.
        drain_s: longest wait for requests under way before TorchServe is stopped.
        quiet_s: requests must have stayed away this long for a drain to count as done.
    """

    archives: tuple[Path, ...]
    store: Path
    public_key: Path
    state: Path
    host: str
    ports: Ports
    serve: Serve
    allow_unsigned: bool = False
    drain_s: float = 15.0
    quiet_s: float = 1.0


class _Stop(BaseException):
    """SIGTERM or Ctrl-C came in while the instance was still starting."""


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C, then drains and leaves nothing behind.

    Raises:
        EmberlineError: an archive may not be served, a port is taken, or a version does not answer as it should;
            nothing runs any more then.
    """
    try:
        _serve(settings)
    except _Stop:
        return


def _serve(settings: Settings) -> None:
    sources = find_archives(settings.archives, settings.store)
    ports = _choose(settings.ports, settings.host)
    board = Board()
    with ExitStack() as stack:
        stack.enter_context(instance.sole_owner(settings.state))
        (settings.state / STATE_FILE).unlink(missing_ok=True)  # of one that was killed: it says nothing true
        signals = stack.enter_context(_Signals().installed())
        log = RunLog(settings.state / "serve.jsonl")
        work = stack.enter_context(instance.private_folder())
        admitted = admit(
            sources, work / "store", public_key=settings.public_key, allow_unsigned=settings.allow_unsigned
        )
        setup = torchserve.Setup(settings.host, ports, work, _log_folder(settings.state), settings.serve)
        metrics = health.Metrics(board)
        app = health.application(board, metrics, f"127.0.0.1:{ports.metrics}")
        stack.enter_context(health.served(app, ports.health))
        supervisor = Supervisor(
            setup, admitted, log, board, metrics, changed=lambda one: _write_state(settings.state, one)
        )
        stack.callback(supervisor.stop)
        stack.callback((settings.state / STATE_FILE).unlink, missing_ok=True)
        _bring_up(supervisor, settings, admitted)
        signals.serving(supervisor)
        supervisor.run()
        log.say("stopping: waiting for the requests under way")
        supervisor.drain(settings.drain_s, settings.quiet_s)
    log.say("stopped")


def _bring_up(supervisor: Supervisor, settings: Settings, admitted: Sequence[Admitted]) -> None:
    log, setup = supervisor.log, supervisor.setup
    names = ", ".join(f"{one.model} {one.version}" for one in admitted)
    log.say(f"serving {names} with {settings.serve.workers} workers each")
    if settings.host not in _LOOPBACK:
        warn(f"the inference port is open on {settings.host}; TorchServe asks nobody who they are")
    supervisor.bring_up()
    _write_state(settings.state, supervisor)
    log.say(f"ready on http://{setup.inference}; health on http://127.0.0.1:{setup.ports.health}/readyz")


def _write_state(state: Path, supervisor: Supervisor) -> None:
    """state/serve.json, whole or not at all: where things are, for other verbs and people."""
    models: dict[str, list[str]] = {}
    for model, version in supervisor.admitted:
        models.setdefault(model, []).append(version)
    setup = supervisor.setup
    facts: Mapping[str, Any] = {
        "pid": os.getpid(),
        "java_pid": supervisor.java_pid,
        "inference": setup.inference,
        "management": setup.management,
        "metrics": f"127.0.0.1:{setup.ports.metrics}",
        "health": f"http://127.0.0.1:{setup.ports.health}",
        "models": models,
    }
    storage.write_bytes(state / STATE_FILE, orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _choose(wanted: Ports, host: str) -> Ports:
    """The ports wanted, or free ones for 0.

    Raises:
        EmberlineError: one is in use.
        InvalidCombination: two are the same.
    """
    _require_different(wanted)

    def choose(port: int, what: str, host: str = "127.0.0.1") -> int:
        if port == 0:
            return process.free_port(host)
        process.require_free_port(port, what, host)
        return port

    return Ports(
        inference=choose(wanted.inference, "TorchServe's inference API", host),
        management=choose(wanted.management, "TorchServe's management API"),
        metrics=choose(wanted.metrics, "TorchServe's metrics API"),
        health=choose(wanted.health, "the health port"),
    )


def _require_different(wanted: Ports) -> None:
    """TorchServe itself would tell two equal ports by a stack of Java's, when all the rest is up."""
    options: dict[int, str] = {}
    for field in fields(wanted):
        port, option = getattr(wanted, field.name), _OPTIONS[field.name]
        if port and port in options:
            raise InvalidCombination(
                "emberline serve", option, f"port {port} is also {options[port]}'s; each needs its own"
            )
        options[port] = option


def _log_folder(state: Path) -> Path:
    folder = (state / "serve").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Signals:
    """SIGTERM and Ctrl-C: during the start they end it at once, later they ask the supervisor to stop in order."""

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._came = False

    @contextmanager
    def installed(self) -> Iterator["_Signals"]:
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def serving(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._supervisor is not None:
            self._supervisor.stopping.set()
        elif not self._came:  # a second one must not break the cleaning up after the first
            self._came = True
            raise _Stop
