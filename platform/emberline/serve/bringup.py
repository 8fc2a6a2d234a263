"""A version brought up on a running TorchServe: registered, its workers started, its answer compared."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from emberline.errors import StageFailed
from emberline.runlog import RunLog, warn
from emberline.serve import management, modellog, probe
from emberline.serve.archives import Admitted
from emberline.serve.engine import Engine
from emberline.serve.management import ManagementRefused
from emberline.serve.probe import Result

# after a registration, a worker that has just said READY may still answer 503 for a moment
_FIRST_ANSWER_S = 15.0
# TorchServe ends a hung worker with an error that nobody repeats; the supervisor does it before, with one that is
_BACKSTOP_S = 2


class BringUp:
    """How versions get up on an engine.

    Attributes:
        workers: of a version that was not tuned, as the settings ask for now.
    """

    def __init__(self, engine: Engine, log: RunLog) -> None:
        self._engine, self.setup, self.log = engine, engine.setup, log
        self.workers = engine.setup.settings.workers

    def num_workers(self, one: Admitted) -> int:
        """How many workers a version is to begin with."""
        settings = self.setup.settings
        if one.tuned is None or not settings.tuned or settings.devices:  # it was measured on the CPU
            return self.workers
        return one.tuned.workers

    def bring_up(self, versions: Iterable[tuple[Admitted, int]]) -> None:
        """Registers versions and returns when all their workers have loaded.

        Raises:
            StageFailed: one cannot be served; the worker's own words are told.
        """
        wanted = list(versions)
        # one after the other, without workers: side by side TorchServe loses versions of one model
        for one, _ in wanted:
            self.register(one)
        # the workers side by side
        with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
            list(pool.map(lambda each: self.start_workers(*each), wanted))

    def register(self, one: Admitted, *, name: str | None = None) -> None:
        """Registers a version without workers, as `name` where that is not its model's."""
        tuned: dict[str, int] = {}
        if one.tuned is not None and self.setup.settings.tuned:
            tuned = one.tuned.model_dump(include={"batch_size", "batch_delay_ms"})
        settings = self.setup.settings.model_copy(
            update={**tuned, "workers": 0, "response_timeout_s": self.setup.settings.response_timeout_s + _BACKSTOP_S}
        )
        try:
            management.register(self.setup.management, one.file.name, settings, name=name)
        except ManagementRefused as refusal:
            raise self._cannot_serve(one, refusal) from refusal

    def start_workers(self, one: Admitted, workers: int, *, name: str | None = None) -> None:
        began = time.monotonic()
        try:
            management.scale(
                self.setup.management,
                name or one.model,
                one.version,
                workers,
                timeout_s=management.STARTUP_TIMEOUT_S + 10.0,  # TorchServe's own verdict comes first
            )
        except ManagementRefused as refusal:
            raise self._cannot_serve(one, refusal) from refusal
        self.log.event("registered", model=one.model, version=one.version, seconds=time.monotonic() - began)

    def require_answer(self, one: Admitted, *, name: str | None = None) -> Result:
        """Probes a version until it answers.

        Raises:
            StageFailed: it does not, or wrongly.
        """
        deadline = time.monotonic() + _FIRST_ANSWER_S
        while (result := self.probe(one, name=name)).outcome == "busy" and time.monotonic() < deadline:
            time.sleep(0.05)
        if result.outcome == "no probe":
            warn(f"{one.source}: carries no probe; {one.model} {one.version} counts as ready when a worker is up")
        elif result.outcome != "matched":
            words = self.last_words(one) if result.outcome == "failed" else ""
            raise StageFailed(
                str(one.source),
                f"{one.model} {one.version} does not answer its probe: {result.detail}"
                + (f"\nthe worker's last words:\n{words}" if words else ""),
                hint="its packages may not suit this machine; measure and archive it here, or compare `emberline show`",
            )
        loading = self._loading(one, name or one.model)
        self.log.event(
            "probed",
            model=one.model,
            version=one.version,
            outcome=result.outcome,
            seconds=result.seconds,
            packages=loading.loaded,
        )
        return result

    def _loading(self, one: Admitted, name: str) -> modellog.Loading:
        """Which packages serve; that a preferred one could not be used is told."""
        loading = modellog.loading(self.setup.model_log, name, one.version, since=self._engine.mark)
        if loading.passed_over:
            serves, reasons = ", ".join(loading.loaded), "; ".join(loading.passed_over)
            warn(f"{one.model} {one.version} serves {serves}; this machine cannot use {reasons}")
        return loading

    def probe(self, one: Admitted, *, name: str | None = None) -> Result:
        timeout_s = self.setup.settings.response_timeout_s + _BACKSTOP_S + 1.0
        return probe.ask(self.setup.inference, name or one.model, one.version, one.probe, timeout_s=timeout_s)

    def last_words(self, one: Admitted) -> str:
        return modellog.last_words(self.setup.model_log, one.model, one.version, since=self._engine.mark)

    def _cannot_serve(self, one: Admitted, refusal: ManagementRefused) -> StageFailed:
        words = self.last_words(one)
        return StageFailed(
            str(one.source),
            f"TorchServe cannot serve {one.model} {one.version}: {refusal.message}"
            + (f"\nthe worker's last words:\n{words}" if words else ""),
            hint=f"all that the workers said: {self.setup.model_log}",
        )
