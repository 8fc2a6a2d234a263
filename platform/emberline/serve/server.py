"""`emberline serve`: one TorchServe with verified archives, from the first check to the last child gone."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import orjson

from emberline import process, storage
from emberline.errors import InvalidCombination, InvalidOption, MissingFile
from emberline.recipe import Serve
from emberline.runlog import SERVER_MAX_BYTES, RunLog, warn
from emberline.serve import instance, torchserve
from emberline.serve.config import Ports
from emberline.serve.engine import Engine

if TYPE_CHECKING:
    from emberline.serve.archives import Admitted
    from emberline.serve.fleet import Fleet
    from emberline.serve.intake import Intake, Stamp
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
        reload: reads the settings anew, on SIGHUP.
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
    reload: Callable[[], Serve]
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
    sources = _find_archives(settings.archives, settings.store)
    ports = _choose(settings.ports, settings.host)
    with ExitStack() as stack:
        stack.enter_context(instance.sole_owner(settings.state))
        (settings.state / STATE_FILE).unlink(missing_ok=True)  # of one that was killed: it says nothing true
        signals = stack.enter_context(_Signals().installed())
        log = RunLog(settings.state / "serve.jsonl", needed=False, max_bytes=SERVER_MAX_BYTES)
        work = stack.enter_context(instance.private_folder())
        engine = Engine(torchserve.Setup(settings.host, ports, work, _log_folder(settings.state), settings.serve), log)
        stack.callback(engine.stop)
        engine.launch()  # it loads nothing yet; what it will load is verified while it starts
        supervisor, intake = _prepare(settings, sources, engine, stack)
        signals.serving(supervisor)
        supervisor.run(intake, settings.reload)
        log.say("stopping: waiting for the requests under way")
        supervisor.drain(settings.drain_s, settings.quiet_s)
    log.say("stopped")


def _find_archives(named: Sequence[Path], store: Path) -> tuple[Path, ...]:
    """The archives named, or all of the store.

    Raises:
        InvalidOption: one that was named is a folder.
        MissingFile: one that was named is not there, or the store has none.
    """
    for path in named:
        if path.is_dir():
            hint = f"for all archives of a folder: emberline serve --store {path}"
            raise InvalidOption("emberline serve", "ARCHIVES", str(path), "a file NAME.mar", hint=hint)
        if not path.is_file():
            raise MissingFile(path, "the archive", hint="emberline archive makes archives")
    found = tuple(named) or tuple(sorted(store.glob("*.mar")))
    if not found:
        raise MissingFile(store, "an archive (*.mar)", hint="make some: emberline archive, or make serve")
    return found


def _prepare(
    settings: Settings, sources: Sequence[Path], engine: Engine, stack: ExitStack
) -> "tuple[Supervisor, Intake]":
    """Admits the archives, opens the health port, and returns when every version answers."""
    # imported only now: java and the workers' parent start meanwhile
    from emberline.serve import health
    from emberline.serve.archives import admit
    from emberline.serve.fleet import Fleet
    from emberline.serve.intake import stamps
    from emberline.serve.status import Board
    from emberline.serve.supervisor import Supervisor

    taken = stamps(sources)
    store, ports = engine.setup.store, engine.setup.ports
    admitted = admit(sources, store, public_key=settings.public_key, allow_unsigned=settings.allow_unsigned)
    board = Board()
    metrics = health.Metrics(board)
    app = health.application(board, metrics, f"127.0.0.1:{ports.metrics}")
    stack.enter_context(health.served(app, ports.health))
    supervisor = Supervisor(engine, engine.log, board, metrics, changed=lambda one: _write_state(settings.state, one))
    stack.callback(supervisor.stop)
    stack.callback((settings.state / STATE_FILE).unlink, missing_ok=True)
    _bring_up(supervisor, settings, Fleet({one.key: one for one in admitted}))
    return supervisor, _intake(supervisor, settings, taken)


def _bring_up(supervisor: "Supervisor", settings: Settings, fleet: "Fleet") -> None:
    log, setup = supervisor.log, supervisor.setup
    names = ", ".join(f"{one.model} {one.version}" for one in fleet.admitted.values())
    log.say(f"serving {names} with {settings.serve.workers} workers each")
    if settings.host not in _LOOPBACK:
        warn(f"the inference port is open on {settings.host}; TorchServe asks nobody who they are")
    supervisor.bring_up(fleet)
    _write_state(settings.state, supervisor)
    log.say(f"ready on http://{setup.inference}; health on http://127.0.0.1:{setup.ports.health}/readyz")


def _intake(supervisor: "Supervisor", settings: Settings, taken: "dict[Path, Stamp]") -> "Intake":
    """What takes in the archives that come while this runs: of the store, or those that were named."""
    from emberline.serve.archives import admit_one
    from emberline.serve.intake import Intake
    from emberline.serve.shelf import Shelf

    def admit_next(source: Path, prefix: str) -> "Admitted":
        return admit_one(
            source,
            supervisor.setup.store,
            public_key=settings.public_key,
            allow_unsigned=settings.allow_unsigned,
            prefix=prefix,
        )

    return Intake(
        supervisor.fleet,
        supervisor.bringup,
        supervisor.log,
        look=Shelf(settings.archives, settings.store).look,
        admit=admit_next,
        taken=taken,
        restart=supervisor.engine.stop_java,
        changed=supervisor.tell,
    )


def _write_state(state: Path, supervisor: "Supervisor") -> None:
    """state/serve.json, whole or not at all: where things are, for other verbs and people."""
    models: dict[str, list[str]] = {}
    for model, version in tuple(supervisor.fleet.admitted):
        models.setdefault(model, []).append(version)
    setup = supervisor.setup
    facts: Mapping[str, Any] = {
        "pid": os.getpid(),
        "java_pid": supervisor.engine.java_pid,
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
        process.require_free_port(port, what, host)
        return port or process.free_port(host)

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
    """SIGTERM and Ctrl-C: during the start they end it at once, later they ask the supervisor to stop in order.

    SIGHUP has the settings read again.
    """

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._came = False

    @contextmanager
    def installed(self) -> Iterator["_Signals"]:
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_hangup)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def serving(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        if self._supervisor is not None:  # during the start the settings are read just now anyway
            self._supervisor.reload.set()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._supervisor is not None:
            self._supervisor.stopping.set()
        elif not self._came:  # a second one must not break the cleaning up after the first
            self._came = True
            raise _Stop
