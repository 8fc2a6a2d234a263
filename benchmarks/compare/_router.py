"""`emberline route` as a process, a model server behind it, and clients that ask all the time.

`MUTANT` names a mistake that the router is started with, where a key has one: `salt_dropped`, `treatments_last`.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import duckdb
import httpx
import yaml

from emberline import process
from emberline.experiment import Experiment, Status, load_experiment, write_status

VARIANTS = [{"name": "new", "version": "1.1"}, {"name": "old", "version": "1.0", "control": True}]
_MUTANTS = {
    "": "",
    "salt_dropped": "import emberline.route.units as u; u._escaped = lambda salt: ''",
    "treatments_last": """
import emberline.route.routes as r
as_it_is = r._variants
def _variants(*given):
    action = as_it_is(*given)
    action["weighted_clusters"]["clusters"].reverse()
    return action
r._variants = _variants
""",
}


@dataclass(frozen=True)
class Asked:
    """One request: when it was answered (monotonic, s), with what, and its id; status 0 without an answer."""

    at: float
    status: int
    request_id: str
    variant: str
    config: str


class Load:
    """Connections that ask one request after the other, from a thread, until left.

    Args:
        pause_s: after each answer.
        fresh: a unit of its own for each request; else 5,000 units over and over.
    """

    def __init__(self, port: int, connections: int = 4, pause_s: float = 0.001, *, fresh: bool = False) -> None:
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
    def failed(self) -> int:
        return sum(one.status != 200 for one in self.asked)

    def more(self, number: int, timeout_s: float = 60) -> None:
        """Waits for so many further answers."""
        wanted = len(self.asked) + number
        process.wait_until(lambda: len(self.asked) >= wanted, timeout_s, f"{number} answers", every_s=0.02)

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection(number) for number in range(self.connections)))

    async def _connection(self, number: int) -> None:
        n = number
        while not self._ended.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self.asked.append(Asked(time.monotonic(), 0, "", "", ""))
                await asyncio.sleep(0.02)
                continue
            try:
                closing = False
                while not self._ended.is_set() and not closing:
                    n += self.connections
                    unit = f"unit-{n if self._fresh else n % 5000}"
                    closing = await self._ask(reader, writer, unit, n)
                    await asyncio.sleep(self._pause_s)
            except (OSError, asyncio.IncompleteReadError):
                self.asked.append(Asked(time.monotonic(), 0, "", "", ""))
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, unit: str, n: int) -> bool:
        """Whether the router asked for this connection to end."""
        status, headers = await ask_once(reader, writer, unit, n)
        told = (headers.get(name, "") for name in ("x-request-id", "x-variant", "x-config-version"))
        self.asked.append(Asked(time.monotonic(), status, *told))
        return headers.get("connection") == "close"


async def ask_once(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, unit: str, n: int, more: str = ""
) -> tuple[int, dict[str, str]]:
    body = b'{"n": %d}' % n
    head = f"POST /predictions/digits HTTP/1.1\r\nhost: r\r\n{more}content-length: {len(body)}\r\nx-unit-id: "
    writer.write(head.encode() + unit.encode() + b"\r\n\r\n" + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]), headers


def ask_units(port: int, units: Sequence[str], connections: int = 8, more: str = "") -> list[dict[str, str]]:
    """Headers of the answers, in the order of the units; a status that is not 200 raises."""
    found: list[dict[str, str]] = [{}] * len(units)

    async def run(start: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for index in range(start, len(units), connections):
            status, found[index] = await ask_once(reader, writer, units[index], 1, more)
            assert status == 200, (status, units[index])
        writer.close()

    async def every() -> None:
        await asyncio.gather(*(run(start) for start in range(min(connections, len(units)))))

    asyncio.run(every())
    return found


@dataclass
class Router:
    """A running router of model `digits`, versions 1.0 (default) and 1.1."""

    folder: Path
    model_port: int
    options: tuple[str, ...] = ()
    port: int = field(default_factory=process.free_port)
    child: Any = None

    def start(self) -> None:
        at = f"127.0.0.1:{self.model_port}"
        options = ["--port", str(self.port), "--upstream", f"digits@1.0={at}", "--upstream", f"digits@1.1={at}"]
        mutant = _MUTANTS[os.environ.get("MUTANT", "")]
        program = f"{mutant}\nfrom emberline.cli import main\nmain()"
        command = [sys.executable, "-c", program, "route", *options, "--default", "digits=1.0", *self.options]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child = process.start(command, name="route", cwd=self.folder, log=self.folder / "route.log")
        process.wait_until(self._ready, 60, "the router")

    def _ready(self) -> bool:
        assert self.child.poll() is None, (self.folder / "route.log").read_text()
        path = self.folder / "state/route.json"
        return path.is_file() and self.paper["pid"] == self.child.pid

    @property
    def paper(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state/route.json").read_bytes())
        return found

    @property
    def experiments(self) -> Path:
        return self.folder / "state/experiments"

    def write(self, name: str, weight: int, revision: int = 0, **spec: Any) -> Experiment:
        """An experiment at a weight; revisions are told apart by their configuration version."""
        self.experiments.mkdir(parents=True, exist_ok=True)
        path = self.experiments / f"{name}.yaml"
        document = {
            "apiVersion": "emberline.dev/v1",
            "kind": "Experiment",
            "metadata": {"name": name},
            "spec": {
                "model": "digits",
                "variants": VARIANTS,
                "primary": {"metric": "correct"},
                "ramp": [{"weight": 5000}],
                **spec,
            },
        }
        text = yaml.safe_dump(document)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
        weights = {"new": weight, "old": 10_000 - weight}
        write_status(self.experiments, name, Status(phase="Ramping", weights=weights, revision=revision))
        return load_experiment(path)

    def await_config(self, experiment: Experiment) -> None:
        """Waits until every process of the router has the configuration."""

        def taken() -> bool:
            dumps = [httpx.get(f"{admin}/config_dump").text for admin in self.paper["admin"].split(",")]
            return all(experiment.config_version in dump for dump in dumps)

        process.wait_until(taken, 20, experiment.config_version, every_s=0.02)

    def request_ids(self) -> list[str]:
        """Of all live exposures, as often as they are there."""
        files = list((self.folder / "data/exposures").glob("part=*/*.parquet"))
        if not files:
            return []
        with duckdb.connect(":memory:") as connection:
            query = "SELECT request_id FROM read_parquet($1) WHERE NOT shadow"
            return [row[0] for row in connection.execute(query, [list(map(str, files))]).fetchall()]

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop(grace_s=25)


@contextmanager
def router(folder: Path, *options: str, fails: str = "") -> Iterator[Router]:
    """A router that is not started yet, with its model server.

    Args:
        fails: VERSION=SHARE that the model server answers with 500.
    """
    command = [sys.executable, str(Path(__file__).with_name("_model.py")), *([fails] if fails else [])]
    model = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert model.stdout is not None
    made = Router(folder, int(model.stdout.readline()), options)
    try:
        yield made
    finally:
        made.stop()
        model.terminate()
        model.wait()
