"""A router as it runs: Envoy kept alive, experiments followed, logs shipped, until it is told to stop.

One loop in the main thread looks every 100 ms: is Envoy alive, did the experiments change, is the log old enough for a
new generation. Shipping and the outcomes endpoint have a thread each.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import orjson

from emberline import process, storage
from emberline.errors import StageFailed
from emberline.exposure import EXPOSURES, OUTCOMES, load_key, parse_line
from emberline.route.bootstrap import render_bootstrap
from emberline.route.clusters import Json
from emberline.route.envoy import DRAIN_S, Admin, Envoy, validate
from emberline.route.folders import Folders
from emberline.route.inside import Inside
from emberline.route.outcomes import Journal, read_spooled
from emberline.route.publish import Publisher, in_force
from emberline.route.render import Rendering, check_together, render
from emberline.route.settings import Address, Settings
from emberline.route.spool import Shipper, Spool
from emberline.route.upkeep import Upkeep
from emberline.route.watch import ExperimentsFolder
from emberline.runlog import RunLog

_LOOK_S = 0.1
_SHIP_S = 1.0
_START_S = 20.0
_BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 30.0


class Router:
    """One router. `start`, then `run` until another thread or a signal handler sets `stopping`, then `stop`."""

    def __init__(self, settings: Settings, folders: Folders, admin_port: int, log: RunLog) -> None:
        self._settings, self._folders, self._log = settings, folders, log
        self.stopping = threading.Event()
        self._exposures = Spool(folders.spool, "exposures")
        self._live_log = folders.spool / "exposures.live"
        self._generation = Path()
        self._beginning = threading.Lock()
        self._began = 0.0
        self._experiments = ExperimentsFolder(folders.experiments, lambda found: check_together(found, settings))
        self._publisher = Publisher(folders.envoy)
        self._admin = Admin(Address("127.0.0.1", admin_port or process.free_port()))
        key = load_key(folders.data)
        outcomes = Spool(folders.spool, "outcomes")
        self._journal = Journal(outcomes, folders.generation_s)
        self._inside = Inside(self._journal, key, self._unready, self._addresses)
        data = folders.data
        self._exposure_shipper = Shipper(
            self._exposures, data / "exposures", EXPOSURES, lambda line: parse_line(line, key), complain=self._complain
        )
        self._outcome_shipper = Shipper(
            outcomes, data / "outcomes", OUTCOMES, read_spooled, unique="event_id", complain=self._complain
        )
        self._upkeep = Upkeep(data, (self._exposures, outcomes), folders.keep_s, self._complain)
        self._rendering_now: Rendering | None = None
        self._unapplied = ""
        self._written = False
        self._envoy_now: Envoy | None = None
        self._shipping: threading.Thread | None = None

    def start(self) -> None:
        """Starts everything; returns when a request through the listener was answered.

        Raises:
            EmberlineError: a port is taken, an experiment of the folder cannot be used, Envoy did not start.
        """
        listen = self._settings.listen
        process.require_free_port(listen.port, "the router", listen.host)
        process.require_free_port(self._admin.address.port, "Envoy's admin address")
        self._experiments.changed()
        found = self._experiments.read()
        if self._experiments.refused:
            raise next(iter(self._experiments.refused.values()))
        self._rendering_now = render(found, self._settings)
        self._inside.start()
        bootstrap = self._render_bootstrap(self._live_log)
        self._publisher.write(self._rendering)
        validate(self._render_bootstrap(Path("/dev/null")), self._folders.envoy)  # it would create the log
        storage.write_bytes(self._bootstrap, orjson.dumps(bootstrap, option=orjson.OPT_INDENT_2))
        self._start_envoy()
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            process.wait_until(lambda: self._answers(client), _START_S, "Envoy answers")
        self._shipping = threading.Thread(target=self._ship_always, name="shipper", daemon=True)
        self._shipping.start()
        self._upkeep.start()
        self._write_paper()

    def run(self) -> None:
        """Keeps the router going until `stopping` is set.

        Raises:
            StageFailed: the outcomes endpoint or the shipper ended; a router without them must not look well.
        """
        deaths, started = 0, time.monotonic()
        while not self.stopping.wait(_LOOK_S):
            if not self._envoy.running():
                deaths = 0 if time.monotonic() - started > _STEADY_S else deaths
                wait_s = _BACKOFF_S[min(deaths, len(_BACKOFF_S) - 1)]
                self._say(f"Envoy ended with code {self._envoy.exit_code()}; starting it again in {wait_s:g} s")
                if self.stopping.wait(wait_s):
                    return
                self._start_envoy()
                deaths, started = deaths + 1, time.monotonic()
                self._write_paper()
            elif self._experiments.changed() or self._unapplied:
                self._follow()
            self._rotate_when_due()
            self._check_threads()

    def stop(self) -> None:
        """Drains: no new connections, requests under way are answered, everything written is shipped."""
        with suppress(FileNotFoundError):
            self._folders.paper.unlink()
        if self._envoy_now is not None and self._envoy_now.running():
            self._drain()
            self._envoy.stop()
        self._inside.stop()
        self.stopping.set()
        self._upkeep.stop()
        if self._shipping is not None:
            self._shipping.join()
            self._written = True
            self._ship()
        self._admin.close()

    @property
    def _rendering(self) -> Rendering:
        if self._rendering_now is None:
            raise AssertionError("`start` comes first")
        return self._rendering_now

    @property
    def _envoy(self) -> Envoy:
        if self._envoy_now is None:
            raise AssertionError("`start` comes first")
        return self._envoy_now

    def _render_bootstrap(self, log: Path) -> Json:
        settings, folders = self._settings, self._folders
        return render_bootstrap(settings, folders.envoy, log, self._admin.address, self._inside.address)

    @property
    def _bootstrap(self) -> Path:
        return self._folders.envoy / "bootstrap.json"

    def _start_envoy(self) -> None:
        """Starts Envoy with what it should do by now and with a new generation of the log.

        A line that the last one was killed in stays the last of its generation.
        """
        self._publisher.write(self._rendering)
        self._begin_generation()
        self._envoy_now = Envoy(self._bootstrap, self._folders.state / "envoy.log")

    def _follow(self) -> None:
        """Brings Envoy to the experiments as they are now; what cannot be used is named and left as it was."""
        found = self._experiments.read()
        for error in self._experiments.refused.values():
            self._say(f"refused, what was in force stays: {error}")
        rendering = render(found, self._settings)
        if rendering.version == self._rendering.version and not self._unapplied:
            return
        try:
            self._publisher.publish(rendering, self._admin)
        except StageFailed as error:
            if not self._unapplied:
                self._say(str(error))
            self._unapplied = error.fact
            return
        self._rendering_now, self._unapplied = rendering, ""
        versions = [experiment.config_version for experiment in found]
        self._log.event("published", version=rendering.version, experiments=versions)

    def _begin_generation(self) -> None:
        """Points the name that Envoy writes to at a new file."""
        with self._beginning:  # the shipper must not meet a file that is nobody's yet
            self._generation, self._began = self._exposures.begin(), time.monotonic()
        link = self._live_log.with_suffix(".partial")
        link.unlink(missing_ok=True)
        link.symlink_to(self._generation.name)
        link.rename(self._live_log)

    def _rotate_when_due(self) -> None:
        size = self._generation.stat().st_size
        old = time.monotonic() - self._began > self._folders.generation_s
        if (old and size) or size > self._folders.generation_bytes:
            self._begin_generation()
            # should Envoy be gone just now, its successor opens the new file anyway
            self._admin.order("/reopen_logs")

    def _ship(self) -> None:
        """Ships what is new. The generations in use stay open until nobody is left to write to them."""

        def may_grow(path: Path) -> bool:
            with self._beginning:
                in_use = path == self._generation and not self._written
            return in_use or (self._envoy_now is not None and self._envoy_now.has_open(path))

        self._exposure_shipper.ship(may_grow)
        self._outcome_shipper.ship(lambda path: self._journal.is_open(path) and not self._written)

    def _check_threads(self) -> None:
        shipping = self._shipping is not None and self._shipping.is_alive()
        if not (shipping and self._inside.running() and self._upkeep.running()) and not self.stopping.is_set():
            raise StageFailed("route", "a thread of the router ended", hint="its traceback is above: please report it")

    def _ship_always(self) -> None:
        while not self.stopping.wait(_SHIP_S):
            try:
                self._ship()
            except OSError as error:  # disk full: the logs keep what was not shipped, and it is tried again
                self._complain(f"not shipped yet, will be tried again: {error}")

    def _drain(self) -> None:
        self._admin.order("/drain_listeners?graceful")
        patience_s = self._settings.limits.timeout_s + 1
        time.sleep(DRAIN_S)  # meanwhile keep-alive connections are told to close with their next answer
        with suppress(StageFailed):  # a client that never ends its request is cut off: it had a whole timeout
            process.wait_until(lambda: not self._admin.count("http.main.downstream_rq_active"), patience_s, "drain")

    def _answers(self, client: httpx.Client) -> bool:
        if not self._envoy.running():
            log = self._folders.state / "envoy.log"
            raise StageFailed("route", f"Envoy ended with code {self._envoy.exit_code()}", hint=f"see {log}")
        try:
            return client.get(f"{self._settings.url}/readyz").is_success
        except httpx.TransportError:  # it does not listen yet
            return False

    def _unready(self) -> str:
        """Empty when Envoy runs what the experiments say."""
        if self._unapplied:
            return self._unapplied
        if self._rendering_now is None or not in_force(self._rendering, self._admin):
            return "Envoy does not run the configuration yet"
        return ""

    def _addresses(self, model: str) -> set[Address]:
        return {address for served, address in self._settings.upstreams.items() if served.model == model}

    def _write_paper(self) -> None:
        facts = {
            "pid": os.getpid(),
            "address": self._settings.url,
            "admin": f"http://{self._admin.address}",
            "envoy_pid": self._envoy.pid,
        }
        storage.write_bytes(self._folders.paper, orjson.dumps(facts, option=orjson.OPT_INDENT_2))

    def _say(self, text: str) -> None:
        self._log.say(text)

    def _complain(self, text: str) -> None:
        self._log.say(f"warning: {text}")
