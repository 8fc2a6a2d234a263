"""`serve` and `route` together, versions whose answers are known, and clients that ask all the time and check them."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
import yaml

from emberline import process, signing
from emberline.archive import packing
from emberline.experiment import Status, load_experiment, write_status

MODEL = "reverse"
BIAS = {"1.0": 0.0, "1.1": 1000.0}
HANDLER = Path(__file__).with_name("_archive") / "answering_handler.py"
START_TIMEOUT_S = 240.0
# the router gives up on a model after 10 s; whoever waits longer than this hangs
HUNG_S = 12.0
NOT_RIGHT = ("wrong", "refused", "error", "hung")
_EXPERIMENT = {
    "apiVersion": "emberline.dev/v1",
    "kind": "Experiment",
    "metadata": {"name": "switch"},
    "spec": {
        "model": MODEL,
        "variants": [{"name": "new", "version": "1.1"}, {"name": "old", "version": "1.0", "control": True}],
        "primary": {"metric": "correct"},
        "ramp": [{"weight": 5000}],
    },
}


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent, what came back, and how long that took."""

    at: float
    seconds: float
    status: int  # 0: the connection ended without an answer
    outcome: str  # right, wrong, refused (429 or 503 with Retry-After), error, hung


@dataclass
class Stack:
    """`serve` and `route` on one folder.

    Attributes:
        shelf: every archive there is; `store` has those that are to be served.
    """

    folder: Path
    keys: signing.Keys
    serve: process.Child = field(init=False)
    route: process.Child = field(init=False)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def shelf(self) -> Path:
        return self.folder / "shelf"

    def paper(self, verb: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "state" / f"{verb}.json").read_bytes())
        return facts

    def readiness(self) -> dict[str, Any]:
        facts: dict[str, Any] = httpx.get(f"{self.paper('serve')['health']}/readyz", timeout=30).json()
        return facts

    def workers(self, version: str) -> list[int]:
        """Process ids of a version's ready workers."""
        address = f"http://{self.paper('serve')['management']}/models/{MODEL}/{version}"
        with suppress(httpx.HTTPError, KeyError):
            (found,) = httpx.get(address, timeout=30).json()
            return [worker["pid"] for worker in found["workers"] if worker["status"] == "READY"]
        return []

    def place(self, version: str, *, content: str | None = None) -> None:
        """Puts an archive into the store, the signature last."""
        name = f"{MODEL}-{version}.mar"
        source, target = self.shelf / f"{content or version}" / name, self.store / name
        signing.signature_of(target).unlink(missing_ok=True)
        for path, copy in ((source, target), (signing.signature_of(source), signing.signature_of(target))):
            fresh = copy.with_suffix(".new")
            fresh.write_bytes(path.read_bytes())
            fresh.replace(copy)

    def remove(self, version: str) -> None:
        for path in self.store.glob(f"{MODEL}-{version}.mar*"):
            path.unlink()

    def served(self) -> list[str]:
        return sorted(self.paper("serve")["models"].get(MODEL, []))

    def weigh(self, new: int, revision: int) -> str:
        """Sets the weight of version 1.1; returns the configuration's version."""
        folder = self.folder / "state" / "experiments"
        weights = {"new": new, "old": 10_000 - new}
        write_status(folder, "switch", Status(phase="Ramping", weights=weights, revision=revision))
        return load_experiment(folder / "switch.yaml").config_version

    def config_version(self) -> str:
        answer = httpx.get(f"{self.paper('route')['address']}/predictions/{MODEL}", timeout=30)
        return answer.headers.get("x-config-version", "")

    def stop(self) -> None:
        self.route.stop(30)
        self.serve.stop(60)


@contextmanager
def stack(folder: Path, *, workers: int = 2, experiment: bool = False, **settings: object) -> Iterator[Stack]:
    """Yields when a prediction came back through the router."""
    made = Stack(folder, signing.create_keys(folder / "keys"))
    for version, bias in BIAS.items():
        write_archive(made.shelf / version, version, bias, made.keys)
    write_archive(made.shelf / "1.0-other", "1.0", 500.0, made.keys)
    made.store.mkdir()
    made.place("1.0")
    if experiment:
        (folder / "state" / "experiments").mkdir(parents=True)
        (folder / "state" / "experiments" / "switch.yaml").write_text(yaml.safe_dump(_EXPERIMENT))
        made.weigh(0, 0)
    settings = {"workers": workers, **settings}
    ports = [part for name in ("port", "management-port", "metrics-port", "health-port") for part in (f"--{name}", "0")]
    options = [part for name, value in settings.items() for part in ("--set", f"serve.{name}={value}")]
    made.serve = _verb("serve", folder, *ports, *options)
    try:
        _await_paper(made.serve, folder, "serve")
        address = made.paper("serve")["inference"]
        upstreams = [part for one in BIAS for part in ("--upstream", f"{MODEL}@{one}={address}")]
        made.route = _verb("route", folder, *upstreams, "--default", f"{MODEL}=1.0", "--port", "0")
        try:
            _await_paper(made.route, folder, "route")
            yield made
        except BaseException:
            _show_logs(folder)
            raise
        finally:
            made.route.stop(30)
    finally:
        made.serve.stop(60)


def write_archive(folder: Path, version: str, bias: float, keys: signing.Keys) -> Path:
    """A signed archive of the answering model."""
    parts = folder / "parts"
    parts.mkdir(parents=True)
    probe = {"instance": {"x": [1.0, 2.0, 3.0]}, "expected": [3 + bias, 2 + bias, 1 + bias], "tolerance": 1e-3}
    (parts / "probe.json").write_text(json.dumps(probe))
    (parts / "behaviour.json").write_text(json.dumps({"bias": bias}))
    archive = folder / f"{MODEL}-{version}.mar"
    packing.pack(archive, parts, HANDLER, model=MODEL, version=version, created="2026-01-01T00:00:00+00:00")
    signing.sign(archive, keys)
    return archive


class Load:
    """Asks through the router all the time while its block runs, each request with numbers of its own.

    Args:
        sleep_s: how long the model takes for each request.
        expected: the biases that an answer of a version may have; several while its content is replaced.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        connections: int = 8,
        pause_s: float = 0.01,
        sleep_s: float = 0.0,
        expected: dict[str, set[float]] | None = None,
    ) -> None:
        self.asked: list[Asked] = []
        self._port = int(stack.paper("route")["address"].rpartition(":")[2])
        self._connections, self._pause_s, self._sleep_s = connections, pause_s, sleep_s
        self._expected = expected or {version: {bias} for version, bias in BIAS.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        process.wait_until(lambda: any(one.outcome == "right" for one in self.asked), 60, "a first right answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def since(self, moment: float) -> list[Asked]:
        return [one for one in self.asked if one.at >= moment]

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection(number) for number in range(self._connections)))

    async def _connection(self, number: int) -> None:
        n = number
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self.asked.append(Asked(began, time.monotonic() - began, 0, "error"))
                await asyncio.sleep(0.05)
                continue
            try:
                while not self._ended.is_set():
                    n += self._connections
                    began = time.monotonic()
                    self.asked.append(await self._ask(reader, writer, float(n), began))
                    await asyncio.sleep(self._pause_s)
            except TimeoutError:
                self.asked.append(Asked(began, time.monotonic() - began, 0, "hung"))
            except (OSError, asyncio.IncompleteReadError):
                self.asked.append(Asked(began, time.monotonic() - began, 0, "error"))
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: float, began: float) -> Asked:
        body = orjson.dumps({"x": [n, n + 1, n + 2], "sleep_s": self._sleep_s})
        head = f"POST /predictions/{MODEL} HTTP/1.1\r\nhost: r\r\nx-unit-id: {n}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        async with asyncio.timeout(HUNG_S):
            raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in raw[1:])}
            content = await reader.readexactly(int(headers.get("content-length", 0)))
        seconds, status = time.monotonic() - began, int(raw[0].split()[1])
        return Asked(began, seconds, status, self._judge(n, status, headers, content))

    def _judge(self, n: float, status: int, headers: dict[str, str], content: bytes) -> str:
        if status in (429, 503) and "retry-after" in headers:
            return "refused"
        if status != 200:
            return "error"
        outputs = orjson.loads(content)["outputs"]
        right = ([n + 2 + bias, n + 1 + bias, n + bias] for bias in self._expected[headers["x-model-version"]])
        return "right" if outputs in right else "wrong"


def tally(asked: list[Asked]) -> dict[str, Any]:
    """Counts, and the longest wait, of some requests."""
    statuses = Counter(str(one.status) for one in asked if one.outcome != "right")
    return {
        "requests": len(asked),
        **{name: sum(one.outcome == name for one in asked) for name in NOT_RIGHT},
        "not_right": dict(statuses),
        "longest_s": round(max((one.seconds for one in asked), default=0.0), 3),
        "longest_error_s": round(
            max((one.seconds for one in asked if one.outcome in ("error", "refused")), default=0.0), 3
        ),
    }


def totals(trials: list[dict[str, Any]]) -> dict[str, int]:
    """Requests of all trials, by what became of those that were not answered rightly."""
    return {name: sum(one["all"][name] for one in trials) for name in ("requests", *NOT_RIGHT)}


def under_load(load: Load, harm: Callable[[], dict[str, Any]], healed: Callable[[], bool], what: str) -> dict[str, Any]:
    """Does some harm, waits until all is as before, and tells what clients saw from then to then."""
    began = time.monotonic()
    facts = harm()
    process.wait_until(healed, 180, what)
    healed_s = time.monotonic() - began
    settled = time.monotonic()
    process.wait_until(lambda: any(one.outcome == "right" for one in load.since(settled)), 60, "a right answer")
    return {**facts, "healed_s": round(healed_s, 2), **tally(load.since(began - HUNG_S))}


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> dict[str, Any]:
    os.kill(pid, number)
    return {"signal": number.name, "pid": pid, "at": time.time()}


def _show_logs(folder: Path) -> None:
    """What a trial that failed leaves: its folder is removed."""
    for path in (folder / "serve.log", folder / "state" / "serve.jsonl", folder / "state" / "serve" / "model.log"):
        print(f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-60:], sep="\n", file=sys.stderr)


def _verb(verb: str, folder: Path, *options: str) -> process.Child:
    command = [sys.executable, "-m", "emberline.cli", verb, *options]
    return process.start(command, name=verb, cwd=folder, log=folder / f"{verb}.log")


def _await_paper(child: process.Child, folder: Path, verb: str) -> None:
    def is_there() -> bool:
        if child.poll() is not None:
            raise RuntimeError((folder / f"{verb}.log").read_text())
        return (folder / "state" / f"{verb}.json").is_file()

    process.wait_until(is_there, START_TIMEOUT_S, verb)
