"""Sends a schedule of requests at their times, whether or not earlier ones were answered, and their labels later."""

import asyncio
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from emberline.client import seconds_of
from emberline.data import Rows, load
from emberline.errors import EmberlineError, InvalidSetting, StageFailed
from emberline.recipe import Recipe
from emberline.runlog import RunLog
from emberline.simulate.traffic import Ask, Population, schedule

_OUTCOMES_EVERY_S = 0.5
_MAX_IN_FLIGHT = 256
_TIMEOUT_S = 10.0
_GIVE_UP_AFTER = 200
_OUTCOMES_TRIES = 6
_OUTCOMES_PAUSE_S = 1.0
# outcomes may be sent again whatever became of them: an event id counts once
_OUTCOMES_RETRIED = (
    httpx.codes.TOO_MANY_REQUESTS,
    httpx.codes.BAD_GATEWAY,
    httpx.codes.SERVICE_UNAVAILABLE,
    httpx.codes.GATEWAY_TIMEOUT,
)


@dataclass
class Tally:
    """What came back, by status and by version; a status of 0 is a request without an answer.

    Attributes:
        outcomes_repeated: how often outcomes were sent again, after an answer that asked for it or none.
        late: requests that could not be sent within a second of their time, since too many were in flight.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    correct: Counter[str] = field(default_factory=Counter)
    outcomes: int = 0
    outcomes_repeated: int = 0
    late: int = 0


class Simulation:
    def __init__(self, url: str, model: str, rows: Rows, labels: tuple[str, ...], label_delay_s: float) -> None:
        self.tally = Tally()
        self._url, self._path, self._rows, self._labels = url.rstrip("/"), f"/predictions/{model}", rows, labels
        self._label_delay_s = label_delay_s
        self._pending: list[tuple[float, dict[str, Any]]] = []
        self._salt = uuid.uuid4().hex[:8]  # event ids of two runs of one seed must not be taken for the same event

    async def run(self, asks: Iterable[Ask], stop: asyncio.Event, on_progress: Callable[[Ask], None]) -> None:
        """Sends all asks, waits for their answers and labels.

        Raises:
            StageFailed: none of the requests was answered with 200, or outcomes were refused time and again.
        """
        limits = httpx.Limits(max_connections=_MAX_IN_FLIGHT, max_keepalive_connections=_MAX_IN_FLIGHT)
        client = httpx.AsyncClient(base_url=self._url, timeout=_TIMEOUT_S, limits=limits)
        async with client, asyncio.TaskGroup() as group:
            all_sent = asyncio.Event()
            feedback = group.create_task(self._send_outcomes(client, all_sent))
            await self._send_requests(client, asks, stop, on_progress)
            all_sent.set()
            await feedback
            self._check_answers(at_least=1)
            await self._drain_outcomes(client, now=float("inf") if stop.is_set() else None)

    async def _send_requests(
        self, client: httpx.AsyncClient, asks: Iterable[Ask], stop: asyncio.Event, on_progress: Callable[[Ask], None]
    ) -> None:
        started = time.monotonic()
        room = asyncio.Semaphore(_MAX_IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            for ask in asks:
                if stop.is_set():
                    break
                self._check_answers(at_least=_GIVE_UP_AFTER)
                await asyncio.sleep(max(0.0, started + ask.at_s - time.monotonic()))
                await room.acquire()
                if time.monotonic() - started - ask.at_s > 1:
                    self.tally.late += 1
                group.create_task(self._ask(client, ask)).add_done_callback(lambda _: room.release())
                on_progress(ask)

    def _check_answers(self, at_least: int) -> None:
        failed = sum(count for status, count in self.tally.statuses.items() if status != httpx.codes.OK)
        if failed >= at_least and not self.tally.statuses[200]:
            statuses = ", ".join(f"{count} x {status or 'no answer'}" for status, count in self.tally.statuses.items())
            raise StageFailed(
                "simulate",
                f"none of {failed} requests was answered with 200: {statuses}",
                hint=f"is the router up at {self._url}?",
            )

    async def _ask(self, client: httpx.AsyncClient, ask: Ask) -> None:
        instance, label = self._rows[ask.row]
        content, content_type = body_of(instance)
        headers = {"x-unit-id": ask.unit, "content-type": content_type}
        try:
            response = await client.post(self._path, content=content, headers=headers)
        except httpx.TransportError:
            self.tally.statuses[0] += 1
            return
        self.tally.statuses[response.status_code] += 1
        if response.status_code != httpx.codes.OK:
            return
        version = response.headers.get("x-model-version", "?")
        truth = self._labels[label] if self._labels else str(label)
        correct = int(orjson.loads(response.content)["label"] == truth)
        self.tally.versions[version] += 1
        self.tally.correct[version] += correct
        outcome = {
            "event_id": f"{self._salt}-{ask.number}",
            "unit": ask.unit,
            "request_id": response.headers.get("x-request-id"),
            "metric": "correct",
            "value": correct,
            "time": time.time(),
        }
        self._pending.append((time.monotonic() + self._label_delay_s, outcome))

    async def _send_outcomes(self, client: httpx.AsyncClient, until: asyncio.Event) -> None:
        while not until.is_set():
            await asyncio.sleep(_OUTCOMES_EVERY_S)
            await self._post_due(client, time.monotonic())

    async def _drain_outcomes(self, client: httpx.AsyncClient, now: float | None) -> None:
        """Sends the labels still to come, at their times; at once when `now` is infinite."""
        while self._pending:
            await self._post_due(client, time.monotonic() if now is None else now)
            await asyncio.sleep(0.1 if now is None else 0)

    async def _post_due(self, client: httpx.AsyncClient, now: float) -> None:
        due = [outcome for at, outcome in self._pending if at <= now]
        if not due:
            return
        self._pending = [(at, outcome) for at, outcome in self._pending if at > now]
        said = ""
        for number in range(1, _OUTCOMES_TRIES + 1):
            pause_s = _OUTCOMES_PAUSE_S
            try:
                response = await client.post("/v1/outcomes", json={"outcomes": due})
            except httpx.TransportError as error:
                said = f"no answer ({str(error) or type(error).__name__})"
            else:
                if response.status_code == httpx.codes.ACCEPTED:
                    self.tally.outcomes += len(due)
                    return
                said = f"{response.status_code}: {response.text[:200]}"
                if response.status_code not in _OUTCOMES_RETRIED:
                    raise StageFailed("simulate", f"outcomes were answered with {said}")
                pause_s = min(_TIMEOUT_S, seconds_of(response.headers.get("retry-after")) or _OUTCOMES_PAUSE_S)
            if number < _OUTCOMES_TRIES:
                self.tally.outcomes_repeated += 1
                await asyncio.sleep(pause_s)
        raise StageFailed(
            "simulate",
            f"outcomes were not taken in {_OUTCOMES_TRIES} tries; the last one: {said}",
            hint=f"is the router up at {self._url}?",
        )


def simulate_clients(recipe: Recipe, path: Path, url: str, population: Population) -> Tally:
    """Runs a simulation against a router, and prints what came back by version.

    SIGTERM and Ctrl-C end it early: labels still to come are then sent at once.

    Raises:
        InvalidSetting: the recipe names no model to ask.
        StageFailed: the router does not answer.
    """
    if recipe.archive is None:
        raise InvalidSetting(path, "archive", None, "a section that names the model")
    rows = load(recipe.data, path.parent).test
    simulation = Simulation(url, recipe.archive.model, rows, recipe.labels, population.label_delay_s)
    log = RunLog()
    log.say(
        f"simulated clients (seed {population.seed}): {population.rate:g} requests/s from {population.num_units} units "
        f"for {population.duration_s:g} s; their answers are real"
    )

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with log.progress("requests", round(population.rate * population.duration_s)) as advance:
            await simulation.run(schedule(population, len(rows)), stop, lambda _: advance(1))

    try:
        asyncio.run(main())
    except ExceptionGroup as group:  # a task group wraps what its tasks raise; the first cause is what to tell
        known = group.subgroup(EmberlineError)  # not by `except*`, out of which early Pythons 3.11 raise a group again
        if known is None:
            raise
        raise _first_cause(known) from None
    for line in _summary(simulation.tally):
        log.say(line)
    return simulation.tally


def _summary(tally: Tally) -> list[str]:
    statuses = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(tally.statuses.items()))
    lines = [f"answers: {statuses or 'none'}; labels sent: {tally.outcomes}"]
    if tally.outcomes_repeated:
        lines.append(f"labels had to be sent again {tally.outcomes_repeated} times")
    if tally.late:
        lines.append(f"{tally.late} requests were sent over a second late: the machine could not keep the rate")
    for version, count in sorted(tally.versions.items()):
        lines.append(f"version {version}: {count} answers, {tally.correct[version] / count:.1%} correct")
    return lines


def _first_cause(group: ExceptionGroup[EmberlineError]) -> EmberlineError:
    first = group.exceptions[0]
    return _first_cause(first) if isinstance(first, ExceptionGroup) else first


def body_of(instance: Mapping[str, Any]) -> tuple[bytes, str]:
    """A row as a client sends it: one image as its bytes, anything else as JSON."""
    if len(instance) == 1 and isinstance(only := next(iter(instance.values())), bytes):
        return only, "image/png" if only.startswith(b"\x89PNG") else "image/jpeg"
    return orjson.dumps(dict(instance), option=orjson.OPT_SERIALIZE_NUMPY), "application/json"
