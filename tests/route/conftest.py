"""A model server that answers like our handlers, a client that asks fast, and a router to stand between."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import duckdb
import httpx
import orjson
import pytest
import yaml

from emberline import process
from emberline.experiment import Experiment, Status, load_experiment, write_status

DISAGREES_EVERY = 50


async def read_message(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return first, headers, body


class InThread:
    """An asyncio server on a thread of its own."""

    def __init__(self) -> None:
        self.content_types: list[str | None] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._connections: set[asyncio.Task] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(asyncio.current_task())
        try:
            while True:
                first, headers, body = await read_message(reader)
                self.content_types.append(headers.get("content-type"))
                writer.write(await self.answer(first, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(asyncio.current_task())
            writer.close()

    async def answer(self, first: str, body: bytes) -> bytes:
        raise NotImplementedError

    def stop(self) -> None:
        def end() -> None:
            self._server.close()
            for task in self._connections:
                task.cancel()
            self._loop.call_later(0.05, self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join()
        self._loop.close()


class ModelServer(InThread):
    """Answers `/predictions/{model}/{version}` as TorchServe with our handlers does.

    The body orders what happens: {"n": 7} is predicted as 7; version 1.1 disagrees at every 50th n. {"slow_s": 1}
    answers late; {"status": 503, "times": 1} fails so often, as counted by the body's "key"; {"answered": true} says
    that it was the handler that answered.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failures: dict[str, int] = {}
        super().__init__()

    async def answer(self, first: str, body: bytes) -> bytes:
        path = first.split()[1]
        self.asked.append(path)
        order = json.loads(body) if body else {}
        if "slow_s" in order:
            await asyncio.sleep(order["slow_s"])
        status, n = 200, order.get("n", 0)
        if "status" in order:
            key = order.get("key", "")
            self.failures[key] = self.failures.get(key, 0) + 1
            if self.failures[key] <= order.get("times", 1 << 30):
                status = order["status"]
        disagrees = path.endswith("/1.1") and n and n % DISAGREES_EVERY == 0
        answer = orjson.dumps({"label": str((n + disagrees) % 10), "score": 0.875, "path": path})
        by = "x-answered-by: handler\r\n" if order.get("answered") else ""
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{by}content-length: {len(answer)}\r\n\r\n"
        return head.encode() + answer


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def ask_many(port: int, requests: list[tuple[str, dict]], connections: int = 8) -> list[Answer]:
    """POSTs (unit, order) pairs to /predictions/digits; answers in the order of the requests."""
    answers: list[Answer | None] = [None] * len(requests)

    async def run(start: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for index in range(start, len(requests), connections):
            unit, order = requests[index]
            body = orjson.dumps(order)
            writer.write(
                f"POST /predictions/digits HTTP/1.1\r\nhost: r\r\ncontent-length: {len(body)}\r\nx-unit-id: ".encode()
                + unit.encode()
                + b"\r\n\r\n"
                + body
            )
            first, headers, answer = await read_message(reader)
            answers[index] = Answer(int(first.split()[1]), headers, answer)
        writer.close()

    await asyncio.gather(*(run(start) for start in range(min(connections, len(requests)))))
    return answers


class Load:
    """Asks a router all the time, from a thread, until stopped; keeps every status and request id."""

    def __init__(self, port: int, connections: int = 4) -> None:
        self.statuses: list[int] = []
        self.request_ids: list[str] = []
        self.errors: list[str] = []
        self._port, self.num_connections, self._ended = port, connections, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection(number) for number in range(self.num_connections)))

    async def _connection(self, number: int) -> None:
        n = number
        while not self._ended.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                while not self._ended.is_set():
                    n += self.num_connections
                    body = orjson.dumps({"n": n})
                    head = f"POST /predictions/digits HTTP/1.1\r\nhost: r\r\nx-unit-id: unit-{n % 5000}\r\n"
                    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                    first, headers, _ = await read_message(reader)
                    self.statuses.append(int(first.split()[1]))
                    self.request_ids.append(headers.get("x-request-id", ""))
                    await asyncio.sleep(0.002)
                writer.close()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.errors.append(repr(error))
                await asyncio.sleep(0.02)


EXPERIMENT = {
    "apiVersion": "emberline.dev/v1",
    "kind": "Experiment",
    "metadata": {"name": "digits-int8"},
    "spec": {
        "model": "digits",
        "variants": [{"name": "int8", "version": "1.1"}, {"name": "fp32", "version": "1.0", "control": True}],
        "primary": {"metric": "correct"},
        "ramp": [{"weight": 5000}],
    },
}


def write_experiment(
    folder: Path,
    weight: int = 0,
    *,
    shadow: float = 0.0,
    noise: float = 0.0,
    revision: int = 0,
    salt: str | None = None,
) -> Experiment:
    """Writes (or rewrites) the experiment and its status; weight is the treatment's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "digits-int8.yaml"
    if salt is not None or not path.is_file():
        path.write_text(yaml.safe_dump({**EXPERIMENT, "spec": {**EXPERIMENT["spec"], "salt": salt}}))
    status = Status(
        phase="Ramping",
        weights={"int8": weight, "fp32": 10_000 - weight},
        shadow=shadow,
        noise=noise,
        revision=revision,
    )
    write_status(folder, "digits-int8", status)
    return load_experiment(path)


@dataclass
class RunningRouter:
    """`emberline route` as a process of its own."""

    folder: Path
    port: int
    options: list[str]
    child: process.Child = field(init=False)
    client: httpx.Client = field(init=False, default_factory=lambda: httpx.Client(verify=False, timeout=20))

    def start(self) -> None:
        command = [Path(sys.executable).with_name("emberline"), "route", "--port", str(self.port), *self.options]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child = process.start(command, name="route", cwd=self.folder, log=self.folder / "route.log")
        process.wait_until(self._ready, 30, "the router is ready")

    def _ready(self) -> bool:
        assert self.child.poll() is None, self.log
        return self.paper_path.is_file() and self.paper["pid"] == self.child.pid

    @property
    def paper_path(self) -> Path:
        return self.folder / "state/route.json"

    @property
    def paper(self) -> dict:
        return json.loads(self.paper_path.read_bytes())

    @property
    def log(self) -> str:
        return (self.folder / "route.log").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def experiments(self) -> Path:
        return self.folder / "state/experiments"

    def ask(self, requests: list[tuple[str, dict]], connections: int = 8) -> list[Answer]:
        return asyncio.run(ask_many(self.port, requests, connections))

    def post(self, path: str, content: bytes = b'{"n": 1}', **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(self.url + path, content=content, headers=named)

    def await_config(self, experiment: Experiment, timeout_s: float = 10) -> None:
        """Waits until answers say that the experiment's present configuration is in force."""

        def in_force() -> bool:
            answer = self.post("/predictions/digits", x_unit_id="probe")
            return answer.headers.get("x-config-version") == experiment.config_version

        process.wait_until(in_force, timeout_s, f"{experiment.config_version} is in force", every_s=0.02)

    def rows(self, kind: str = "exposures", columns: str = "*") -> list[tuple]:
        if not list((self.folder / "data" / kind).glob("*/*.parquet")):
            return []
        with duckdb.connect(":memory:", config={"enable_external_file_cache": False}) as connection:
            return connection.sql(f"select {columns} from '{self.folder}/data/{kind}/*/*.parquet'").fetchall()

    def await_rows(self, number: int, kind: str = "exposures", columns: str = "request_id") -> list[tuple]:
        """Waits for that many rows; the assertion about them is the test's."""

        def there() -> bool:
            try:
                return len(self.rows(kind, columns)) >= number
            except duckdb.Error:  # a file was replaced between its footer and its rows
                return False

        process.wait_until(there, 15, f"{number} rows of {kind}")
        return self.rows(kind, columns)

    def stop(self) -> int:
        self.client.close()
        return self.child.stop(grace_s=20)


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.stop()


def options_for(server: ModelServer) -> list[str]:
    at = f"127.0.0.1:{server.port}"
    return [
        *("--upstream", f"digits@1.0={at}", "--upstream", f"digits@1.1={at}", "--upstream", f"plain@2={at}"),
        *("--default", "digits=1.0", "--default", "plain=2"),
    ]


@pytest.fixture(scope="module")
def start_router(model_server, tmp_path_factory) -> Iterator[Callable[..., RunningRouter]]:
    """Starts routers; they are stopped at the end of the module."""
    started: list[RunningRouter] = []

    def start(*options: str, weight: int | None = 3000, shadow: float = 0.0) -> RunningRouter:
        folder = tmp_path_factory.mktemp("router")
        router = RunningRouter(folder, process.free_port(), [*options_for(model_server), *options])
        if weight is not None:
            write_experiment(router.experiments, weight, shadow=shadow)
        started.append(router)
        router.start()
        return router

    yield start
    for router in started:
        router.stop()


@pytest.fixture(name="write_experiment")
def _write_experiment():
    return write_experiment


@pytest.fixture
def load_on():
    return Load
