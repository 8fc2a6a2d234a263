"""A model server that answers like our handlers, and routers to stand before it."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import duckdb
import httpx
import orjson
import pytest
from live_router import Answer, Load, RunningRouter, ask_all, read_message, write_experiment

from emberline import process
from emberline.experiment import Experiment

DISAGREES_EVERY = 50


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
class Router(RunningRouter):
    """One that tests look into."""

    client: httpx.Client = field(init=False, default_factory=lambda: httpx.Client(verify=False, timeout=20))

    def ask(self, requests: list[tuple[str, dict]], connections: int = 8) -> list[Answer]:
        return ask_all(self.port, [(unit, orjson.dumps(order)) for unit, order in requests], connections)

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
        return super().stop()


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
def start_router(model_server, tmp_path_factory) -> Iterator[Callable[..., Router]]:
    """Starts routers; they are stopped at the end of the module."""
    started: list[Router] = []

    def start(*options: str, weight: int | None = 3000, shadow: float = 0.0, broken: str | None = None) -> Router:
        folder = tmp_path_factory.mktemp("router")
        router = Router(folder, [*options_for(model_server), *options])
        if weight is not None:
            write_experiment(router.experiments, weight, shadow=shadow)
        router.experiments.mkdir(parents=True, exist_ok=True)
        if broken is not None:
            (router.experiments / "broken.yaml").write_text(broken)
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
