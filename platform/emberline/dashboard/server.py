"""Runs the dashboard until SIGTERM or Ctrl-C, and says where it is once it answers."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import uvicorn

from emberline import process, storage
from emberline.dashboard.application import application
from emberline.dashboard.views import Views
from emberline.runlog import RunLog


def run(views: Views, host: str, port: int, state: Path) -> None:
    """Serves on `host:port` (0: any free port); `state/dashboard.json` is there while it does.

    Raises:
        EmberlineError: the port is taken.
    """
    port = port or process.free_port(host)
    process.require_free_port(port, "the dashboard", host)
    listener = socket.create_server((host, port), backlog=128)
    config = uvicorn.Config(application(views), log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    server = _Server(config, state / "dashboard.json", f"http://{host}:{port}")
    with _stopped_by_signals(server):
        asyncio.run(server.serve(sockets=[listener]))


class _Server(uvicorn.Server):
    """Leaves signals to its caller, so that being stopped is no failure."""

    def __init__(self, config: uvicorn.Config, notice: Path, address: str) -> None:
        super().__init__(config)
        self._notice, self._address = notice, address

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        storage.write_bytes(self._notice, orjson.dumps({"pid": os.getpid(), "address": self._address}))
        RunLog().say(f"dashboard: {self._address}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._notice.unlink(missing_ok=True)
        await super().shutdown(sockets)


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    def stop(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
