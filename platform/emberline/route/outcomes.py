"""Outcomes: what became known after a prediction, taken by HTTP and on the disk before the answer.

Requests that arrive together share one fsync. A unit's id is hashed before anything is written. An event id of a unit
counts once, as it was first received: within a request, within a generation of the log (a minute), and for readers of
the Parquet files for ever.
"""

import asyncio
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from emberline.errors import EmberlineError
from emberline.exposure import OUTCOMES, Row, UnreadableLine, hash_unit
from emberline.route.spool import Spool

MAX_OUTCOMES = 10_000
AHEAD_S = 86_400.0  # a time beyond that is no clock's error: milliseconds, mostly
_MAX_ID_BYTES = 256
_ID_WANTED = f"text of 1 to {_MAX_ID_BYTES} bytes"
_WANTED = {
    "outcomes": f"a list of 1 to {MAX_OUTCOMES:,} outcomes",
    "event_id": _ID_WANTED,
    "unit": f"{_ID_WANTED} without spaces around it, which headers lose,",
    "request_id": _ID_WANTED,
    "metric": "a name of at most 63 lower-case letters, digits and _, a letter first,",
    "value": "a number",
    "time": "a Unix time in seconds",
}


def _short(text: str) -> str:
    if not 0 < len(text.encode()) <= _MAX_ID_BYTES:
        raise ValueError(f"1 to {_MAX_ID_BYTES} bytes are required")
    return text


def _bare(text: str) -> str:
    if text != text.strip():
        raise ValueError("no spaces may be around it")
    return text


Id = Annotated[str, AfterValidator(_short)]


class Outcome(BaseModel):
    """One outcome as sent.

    Attributes:
        event_id: chosen by the sender; sending it again changes nothing.
        unit: raw id, as in the prediction's header.
        request_id: of the prediction (its `x-request-id` header) where the outcome is of one request.
        time: Unix time in seconds; when it arrived, where absent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    event_id: Id
    unit: Annotated[Id, AfterValidator(_bare)]
    request_id: Id | None = None
    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    value: Annotated[float, Field(allow_inf_nan=False)]
    time: Annotated[float, Field(gt=0, lt=1e11, allow_inf_nan=False)] | None = None


class Outcomes(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    outcomes: Annotated[tuple[Outcome, ...], Field(min_length=1, max_length=MAX_OUTCOMES, strict=False)]


class InvalidOutcomes(EmberlineError):
    """A body that cannot be taken; nothing of it was.

    Attributes:
        field: what is wrong in it, such as `outcomes.3.value`.
    """

    def __init__(self, field: str, fact: str) -> None:
        self.field = field
        super().__init__(fact, place=field)


def parse_outcomes(body: bytes, key: bytes, now_s: float) -> list[Row]:
    """Rows of a request's body, each event id of a unit once.

    Raises:
        InvalidOutcomes: names the first field that is wrong.
    """
    try:
        sent = Outcomes.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise InvalidOutcomes("body", "JSON is required") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidOutcomes(*what_is_wrong(first["type"], first["loc"])) from error
    for number, outcome in enumerate(sent.outcomes):
        if outcome.time is not None and outcome.time > now_s + AHEAD_S:
            field = f"outcomes.{number}.time"
            raise InvalidOutcomes(field, f"{field} is more than a day ahead; {_WANTED['time']} is required")
    rows = {
        (outcome.unit, outcome.event_id): {
            "time_us": round((now_s if outcome.time is None else outcome.time) * 1_000_000),
            "event_id": outcome.event_id,
            "unit": hash_unit(key, outcome.unit),
            "request_id": outcome.request_id,
            "metric": outcome.metric,
            "value": outcome.value,
            "received_us": round(now_s * 1_000_000),
        }
        for outcome in reversed(sent.outcomes)  # the first of an id counts
    }
    return list(reversed(rows.values()))


def what_is_wrong(kind: str, place: tuple[int | str, ...]) -> tuple[str, str]:
    """The field that is wrong, and what is wanted of it, in a sender's words."""
    field = ".".join(map(str, place)) or "body"
    if kind == "extra_forbidden":
        known = Outcome if len(place) > 1 else Outcomes
        return field, f"{field} is not known; {', '.join(known.model_fields)} are"
    wanted = _WANTED.get(str(place[-1]) if place else "", "a JSON object")
    return field, f"{field} is {'missing' if kind == 'missing' else 'not what it should be'}; {wanted} is required"


def read_spooled(line: bytes) -> Row:
    """A row as `Journal` wrote it."""
    try:
        row: Row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UnreadableLine(line, "not JSON") from error
    if isinstance(row, dict):
        row.setdefault("received_us", None)  # a line of an earlier version does not tell
    if not isinstance(row, dict) or row.keys() != set(OUTCOMES.names):
        raise UnreadableLine(line, "not an outcome")
    return row


@dataclass
class _Waiting:
    lines: bytes
    written: "asyncio.Future[None]"


class Journal:
    """Appends rows to a spool; `append` returns when they are on the disk."""

    def __init__(self, spool: Spool, generation_s: float) -> None:
        self._spool, self._generation_s = spool, generation_s
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._lock = threading.Lock()  # the shipper asks from its own thread
        self.path: Path | None = None
        self._began = 0.0

    async def append(self, rows: list[Row]) -> None:
        waiting = _Waiting(
            b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows),
            asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(waiting)
        self._wake.set()
        await waiting.written

    async def run(self) -> None:
        """Writes what waits, one fsync for all of it; until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._write, b"".join(waiting.lines for waiting in batch))
            except OSError as error:  # disk full: each sender is told, and may send again
                for waiting in batch:
                    if not waiting.written.done():
                        waiting.written.set_exception(error)
                continue
            for waiting in batch:
                if not waiting.written.done():  # its sender may have gone away
                    waiting.written.set_result(None)

    def is_open(self, path: Path) -> bool:
        """Whether a generation may still grow; one that is old enough is closed here."""
        with self._lock:
            if self.path is not None and time.monotonic() - self._began > self._generation_s:
                self.path = None
            return path == self.path

    def _write(self, lines: bytes) -> None:
        with self._lock:
            if self.path is None:
                self.path, self._began = self._spool.begin(), time.monotonic()
            with self.path.open("ab", buffering=0) as file:
                start = file.seek(0, os.SEEK_END)
                try:
                    _write_all(file.fileno(), lines)
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(start)  # half a batch that nobody was promised
                    raise


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
