"""A router as a process, and clients that ask it all the time: for tests and benchmarks alike."""

import asyncio
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from emberline import process
from emberline.experiment import Experiment, Status, load_experiment, write_status

INT8 = {"name": "int8", "version": "1.1"}
FP32 = {"name": "fp32", "version": "1.0", "control": True}


def write_experiment(
    folder: Path,
    weight: int = 0,
    *,
    name: str = "digits-int8",
    shadow: float = 0.0,
    noise: float = 0.0,
    revision: int = 0,
    **spec: Any,
) -> Experiment:
    """Writes (or rewrites) an experiment and its status.

    Args:
        weight: the treatment's, out of 10,000.
        revision: tells configurations apart that differ in their status alone.
        spec: beside the model and its two versions, a primary and a ramp of one step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    plain = {"model": "digits", "variants": [INT8, FP32], "primary": {"metric": "correct"}, "ramp": [{"weight": 5000}]}
    document = {
        "apiVersion": "emberline.dev/v1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {**plain, **spec},
    }
    if spec or not path.is_file():
        path.write_text(yaml.safe_dump(document))
    weights = {INT8["name"]: weight, FP32["name"]: 10_000 - weight}
    status = Status(phase="Ramping", weights=weights, shadow=shadow, noise=noise, revision=revision)
    write_status(folder, name, status)
    return load_experiment(path)


async def read_message(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return first, headers, body


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, unit: str, body: bytes, more: str = ""
) -> Answer:
    """POSTs to /predictions/digits; `more` is further header lines."""
    head = f"POST /predictions/digits HTTP/1.1\r\nhost: r\r\n{more}content-length: {len(body)}\r\nx-unit-id: "
    writer.write(head.encode() + unit.encode() + b"\r\n\r\n" + body)
    first, headers, answer = await read_message(reader)
    return Answer(int(first.split()[1]), headers, answer)


def ask_all(port: int, requests: list[tuple[str, bytes]], connections: int = 8, more: str = "") -> list[Answer]:
    """POSTs (unit, body) pairs; answers in the order of the requests."""
    answers: list[Any] = [None] * len(requests)

    async def run(start: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for index in range(start, len(requests), connections):
            answers[index] = await ask(reader, writer, *requests[index], more)
        writer.close()

    async def every() -> None:
        await asyncio.gather(*(run(start) for start in range(min(connections, len(requests)))))

    asyncio.run(every())
    return answers


@dataclass(frozen=True)
class Asked:
    """One request of a load: when it was answered (monotonic, s), with what, and its id; status 0 without an answer."""

    at: float
    status: int
    request_id: str


class Load:
    """Connections that ask one request after the other, from a thread, until left.

    Args:
        pause_s: after each answer.
        fresh: a unit of its own for each request; else 5,000 units over and over.
    """

    def __init__(self, port: int, connections: int = 4, pause_s: float = 0.002, *, fresh: bool = False) -> None:
        self.asked: list[Asked] = []
        self.connections, self._port, self._pause_s, self._fresh = connections, port, pause_s, fresh
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def statuses(self) -> set[int]:
        """Of all answers."""
        return {one.status for one in self.asked if one.status}

    @property
    def request_ids(self) -> list[str]:
        """Of all answers."""
        return [one.request_id for one in self.asked if one.status]

    @property
    def unanswered(self) -> int:
        return sum(not one.status for one in self.asked)

    @property
    def failed(self) -> int:
        return sum(one.status != 200 for one in self.asked)

    def more(self, number: int, timeout_s: float = 60) -> None:
        """Waits for so many further answers."""
        wanted = len(self.request_ids) + number
        process.wait_until(lambda: len(self.request_ids) >= wanted, timeout_s, f"{number} answers", every_s=0.02)

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection(number) for number in range(self.connections)))

    async def _connection(self, number: int) -> None:
        n = number
        while not self._ended.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self.asked.append(Asked(time.monotonic(), 0, ""))
                await asyncio.sleep(0.02)
                continue
            try:
                closing = False
                while not self._ended.is_set() and not closing:
                    n += self.connections
                    unit = f"unit-{n if self._fresh else n % 5000}"
                    answer = await ask(reader, writer, unit, b'{"n": %d}' % n)
                    request_id = answer.headers.get("x-request-id", "")
                    self.asked.append(Asked(time.monotonic(), answer.status, request_id))
                    closing = answer.headers.get("connection") == "close"
                    await asyncio.sleep(self._pause_s)
            except (OSError, asyncio.IncompleteReadError):
                self.asked.append(Asked(time.monotonic(), 0, ""))
            writer.close()


@dataclass
class RunningRouter:
    """`emberline route` as a process of its own."""

    folder: Path
    options: list[str]
    port: int = field(default_factory=process.free_port)
    child: process.Child | None = field(init=False, default=None)

    def program(self) -> list[str]:
        return [str(Path(sys.executable).with_name("emberline"))]

    def start(self) -> None:
        command = [*self.program(), "route", "--port", str(self.port), *self.options]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child = process.start(command, name="route", cwd=self.folder, log=self.folder / "route.log")
        process.wait_until(self._ready, 60, "the router is ready")

    def _ready(self) -> bool:
        assert self.child.poll() is None, self.log
        return self.paper_path.is_file() and self.paper["pid"] == self.child.pid

    @property
    def paper_path(self) -> Path:
        return self.folder / "state/route.json"

    @property
    def paper(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.paper_path.read_bytes())
        return found

    @property
    def log(self) -> str:
        return (self.folder / "route.log").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def experiments(self) -> Path:
        return self.folder / "state/experiments"

    def stop(self) -> int:
        """Its exit code; 0 of one that was never started."""
        return 0 if self.child is None else self.child.stop(grace_s=25)
