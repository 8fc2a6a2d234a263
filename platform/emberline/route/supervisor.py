"""A router as it runs: its Envoys kept alive and in line with the experiments, until it is told to stop.

One loop in the main thread looks every 100 ms: is each Envoy alive, did the experiments change, is a log old enough for
a new generation. Shipping, the outcomes endpoint and the upkeep of files have a thread each.
"""

import os
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import orjson

from emberline import process, storage
from emberline.errors import EmberlineError, StageFailed
from emberline.experiment import Experiment
from emberline.exposure import load_key
from emberline.route.bootstrap import render_bootstrap
from emberline.route.edge import check_jwks, read_api_keys, write_tls
from emberline.route.envoy import DRAIN_S, Admin, validate
from emberline.route.folders import Folders, write_private
from emberline.route.inside import Inside
from emberline.route.instance import Instance
from emberline.route.outcomes import Journal
from emberline.route.publish import Publisher, in_force
from emberline.route.render import Rendering, check_deployed, check_together, render
from emberline.route.settings import Address, Settings
from emberline.route.shipping import Shipping
from emberline.route.spool import Spool
from emberline.route.upkeep import Upkeep
from emberline.route.watch import ExperimentsFolder
from emberline.runlog import RunLog

_LOOK_S = 0.1
_START_S = 20.0
_ROOM_BYTES = 16 << 20


class Router:
    """One router. `start`, then `run` until another thread or a signal handler sets `stopping`, then `stop`."""

    def __init__(self, settings: Settings, folders: Folders, admin_port: int, log: RunLog) -> None:
        self._settings, self._folders, self._log = settings, folders, log
        self.stopping = threading.Event()
        self._exposures = Spool(folders.spool, "exposures")
        state = folders.state.absolute()
        self._instances = [
            Instance(number, self._exposures, state, 0 if number else admin_port, self._say)
            for number in range(settings.processes)
        ]
        self._restart_asked = threading.Event()
        self._experiments = ExperimentsFolder(
            folders.experiments,
            lambda found: check_together(found, settings),
            lambda found: check_deployed(found, settings),
        )
        self._refused: list[str] = []
        self._publisher = Publisher(folders.envoy)
        key = load_key(folders.data)
        outcomes = Spool(folders.spool, "outcomes")
        self._journal = Journal(outcomes, folders.generation_s)
        self._inside = Inside(self._journal, key, self._unready, self._addresses, lambda: self._refused)
        self._shipping = Shipping(
            folders, settings.taps, self._exposures, outcomes, key,
            instances=self._instances, journal=self._journal, stopping=self.stopping, complain=self._complain,
        )  # fmt: skip
        self._upkeep = Upkeep(folders.data, (self._exposures, outcomes), folders.keep_s, self._complain)
        self._rendering_now: Rendering | None = None
        self._unapplied = ""

    def start(self) -> None:
        """Starts everything; returns when a request through the listener was answered.

        Raises:
            EmberlineError: a port is taken, or Envoy did not start.
        """
        listen = self._settings.listen
        process.require_free_port(listen.port, "the router", listen.host)
        for instance in self._instances:
            process.require_free_port(instance.admin.address.port, "Envoy's admin address")
        self._experiments.changed()
        found = self._experiments.read()
        self._say_refused()
        self._rendering_now = self._render(found)
        self._shipping.prepare()
        self._shipping.know(found)
        self._inside.start()
        self._publisher.write(self._rendering)
        self._write_bootstraps()
        for instance in self._instances:
            instance.start()
        # the own certificate is for clients' names of this machine, which loopback's is not one of
        with httpx.Client(timeout=2.0, trust_env=False, verify=False) as client:  # noqa: S501
            process.wait_until(lambda: self._answers(client), _START_S, "Envoy answers")
        self._shipping.start()
        self._upkeep.start()
        self._write_paper()

    def run(self) -> None:
        """Keeps the router going until `stopping` is set.

        Raises:
            StageFailed: the outcomes endpoint or the shipper ended; a router without them must not look well.
        """
        while not self.stopping.wait(_LOOK_S):
            dead = [one for one in self._instances if not one.running()]
            for instance in dead:
                self._publisher.write(self._rendering)
                if instance.revive():
                    self._write_paper()
            if not dead and self._restart_asked.is_set():
                self._restart_asked.clear()
                self._restart_hot()
            if len(dead) < len(self._instances) and (self._experiments.changed() or self._unapplied):
                self._follow()
            for instance in self._instances:
                instance.rotate_when_due(self._folders.generation_s, self._folders.generation_bytes)
            self._check_threads()

    def restart(self) -> None:
        """Has Envoy restarted without a gap, with API keys read again; for a signal handler."""
        self._restart_asked.set()

    def stop(self) -> None:
        """Drains: no new connections, requests under way are answered, everything written is shipped."""
        with suppress(FileNotFoundError):
            self._folders.paper.unlink()
        self._drain([one for one in self._instances if one.running()])
        for instance in self._instances:
            instance.stop()
        self._inside.stop()
        self.stopping.set()
        self._upkeep.stop()
        self._shipping.finish()
        for instance in self._instances:
            instance.close()

    @property
    def _rendering(self) -> Rendering:
        if self._rendering_now is None:
            raise AssertionError("`start` comes first")
        return self._rendering_now

    @property
    def _admins(self) -> list[Admin]:
        """Of the Envoys that run."""
        return [one.admin for one in self._instances if one.running()]

    def _render(self, found: tuple[Experiment, ...]) -> Rendering:
        return render(found, self._settings, self._experiments.deployed)

    def _write_bootstraps(self) -> None:
        """Files for each Envoy to start with, checked by Envoy itself.

        Raises:
            EmberlineError: a file of the edge cannot be used, or Envoy refuses the whole.
        """
        folders, settings = self._folders, self._settings
        if settings.edge.tls is not None:
            write_tls(settings.edge.tls, folders.envoy)
        if settings.edge.tokens is not None:
            check_jwks(settings.edge.tokens.jwks)
        inside = self._inside.address
        for instance in self._instances:
            admin = instance.admin.address
            if not instance.number:  # they differ in a port and a name
                nowhere = render_bootstrap(settings, folders.envoy, Path("/dev/null"), admin, inside)
                validate(nowhere, folders.envoy)  # with the log, it would create it
            content = render_bootstrap(settings, folders.envoy, instance.live_log, admin, inside)
            write_private(instance.bootstrap, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def _restart_hot(self) -> None:
        try:
            if self._folders.api_keys is not None:
                edge = replace(self._settings.edge, api_keys=read_api_keys(self._folders.api_keys))
                self._settings = replace(self._settings, edge=edge)
            self._write_bootstraps()
            for instance in self._instances:
                instance.restart_hot()
        except EmberlineError as error:
            self._complain(f"not restarted, what was in force stays: {error}")
            return
        self._write_paper()

    def _follow(self) -> None:
        """Brings Envoy to the experiments as they are now; what cannot be used is named and left as it was."""
        found = self._experiments.read()
        self._shipping.know(found)
        self._say_refused()
        rendering = self._render(found)
        if rendering.version == self._rendering.version and not self._unapplied:
            return
        try:
            self._publisher.publish(rendering, self._admins)
        except StageFailed as error:
            if not self._unapplied:
                self._say(str(error))
            self._unapplied = error.fact
            return
        self._rendering_now, self._unapplied = rendering, ""
        versions = [experiment.config_version for experiment in found]
        self._log.event("published", version=rendering.version, experiments=versions)

    def _say_refused(self) -> None:
        self._refused = sorted(self._experiments.refused)  # as a whole: the readiness endpoint's thread reads it
        for error in self._experiments.refused.values():
            self._complain(f"refused, what was in force stays: {error}")

    def _check_threads(self) -> None:
        threads = (self._shipping, self._inside, self._upkeep)
        if not all(one.running() for one in threads) and not self.stopping.is_set():
            raise StageFailed("route", "a thread of the router ended", hint="its traceback is above: please report it")

    def _drain(self, instances: list[Instance]) -> None:
        if not instances:
            return
        for instance in instances:
            instance.admin.order("/drain_listeners?graceful")
        patience_s = self._settings.limits.timeout_s + 1
        time.sleep(DRAIN_S)  # meanwhile keep-alive connections are told to close with their next answer

        def idle() -> bool:
            return not sum(one.admin.count("http.main.downstream_rq_active") for one in instances)

        with suppress(StageFailed):  # a client that never ends its request is cut off: it had a whole timeout
            process.wait_until(idle, patience_s, "drain")

    def _answers(self, client: httpx.Client) -> bool:
        for instance in self._instances:
            if not instance.running():
                hint = f"see {instance.output}"
                raise StageFailed("route", f"Envoy ended with code {instance.exit_code()}", hint=hint)
        try:
            answer = client.get(f"{self._settings.url}/readyz")
        except httpx.TransportError:  # it does not listen yet
            return False
        return answer.is_success and all(one.admin.epoch() is not None for one in self._instances)

    def _unready(self) -> str:
        """Empty when Envoy runs what the experiments say."""
        if self._unapplied:
            return self._unapplied
        if shutil.disk_usage(self._folders.spool).free < _ROOM_BYTES:
            return "there is no room for exposures: the disk is full"
        if self._rendering_now is None or not in_force(self._rendering, self._admins):
            return "Envoy does not run the configuration yet"
        return ""

    def _addresses(self, model: str) -> set[Address]:
        """Where the versions are served that get the model's requests."""
        return {self._settings.upstreams[served] for served in self._rendering.asked if served.model == model}

    def _write_paper(self) -> None:
        facts = {
            "pid": os.getpid(),
            "address": self._settings.url,
            "admin": ",".join(f"http://{one.admin.address}" for one in self._instances),
            "envoy_pid": self._instances[0].pid,
            "envoy_pids": [one.pid for one in self._instances],
        }
        storage.write_bytes(self._folders.paper, orjson.dumps(facts, option=orjson.OPT_INDENT_2))

    def _say(self, text: str) -> None:
        self._log.say(text)

    def _complain(self, text: str) -> None:
        self._log.say(f"warning: {text}")
