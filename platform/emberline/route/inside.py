"""The router's own HTTP endpoint behind Envoy: outcomes, and whether it and its models are ready."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from emberline import process
from emberline.errors import StageFailed
from emberline.route.outcomes import InvalidOutcomes, Journal, parse_outcomes
from emberline.route.own_routes import OUTCOMES_PATH
from emberline.route.settings import Address

_CONNECT_S = 1.0
_KEEP_ALIVE_S = 60  # Envoy lets go of idle connections long before, so that it never sends into one that closes
_RETRY = {"retry-after": "1"}


class Inside:
    """Runs the endpoint in a thread of its own, on a loopback port of its own.

    Args:
        unready: why the router is not ready, or an empty text.
        refused: files of experiments that are not in force as they are.
        upstreams: where a model's versions that get traffic are served; empty for a model nobody knows.
    """

    def __init__(
        self,
        journal: Journal,
        key: bytes,
        unready: Callable[[], str],
        upstreams: Callable[[str], set[Address]],
        refused: Callable[[], list[str]],
    ) -> None:
        self._journal, self._key, self._unready, self._upstreams = journal, key, unready, upstreams
        self._refused = refused
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", int(self._socket.getsockname()[1]))
        config = uvicorn.Config(
            self._app(), log_level="warning", access_log=False, lifespan="on", timeout_keep_alive=_KEEP_ALIVE_S
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="inside", daemon=True
        )

    def start(self) -> None:
        self._thread.start()
        process.wait_until(
            lambda: self._server.started or not self._thread.is_alive(), 10, "the outcomes endpoint starts"
        )
        if not self._server.started:
            raise StageFailed("route", "the outcomes endpoint did not start")

    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Lets requests under way finish."""
        self._server.should_exit = True
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout=10)
        self._socket.close()

    def _app(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            writing = asyncio.create_task(self._journal.run())
            yield
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

        return Starlette(
            lifespan=lifespan,
            routes=[
                Route(OUTCOMES_PATH, self._take_outcomes, methods=["POST"]),
                Route("/readyz", self._ready),
                Route("/v2/health/live", _live),
                Route("/v2/health/ready", self._ready),
                Route("/v2/models/{model}/ready", self._model_ready),
            ],
        )

    async def _take_outcomes(self, request: Request) -> JSONResponse:
        try:
            rows = parse_outcomes(await request.body(), self._key, time.time())
        except InvalidOutcomes as error:
            return JSONResponse({"error": error.fact, "field": error.field}, 400)
        try:
            await self._journal.append(rows)
        except OSError as error:
            return JSONResponse({"error": f"the outcomes could not be written: {error.strerror}"}, 503, _RETRY)
        return JSONResponse({"accepted": len(rows)}, 202)

    async def _ready(self, _request: Request) -> JSONResponse:
        reason = await asyncio.to_thread(self._unready)  # it asks Envoy
        if reason:
            return JSONResponse({"ready": False, "error": reason}, 503, _RETRY)
        refused = self._refused()
        return JSONResponse({"ready": True, **({"refused": refused} if refused else {})})

    async def _model_ready(self, request: Request) -> JSONResponse:
        model = request.path_params["model"]
        addresses = self._upstreams(model)
        if not addresses:
            return JSONResponse({"error": f"no model {model!r} is served here"}, 404)
        away = [str(address) for address in sorted(addresses) if not await _accepts(address)]
        if away:
            return JSONResponse(
                {"name": model, "ready": False, "error": f"no answer from {', '.join(away)}"}, 503, _RETRY
            )
        return JSONResponse({"name": model, "ready": True})


async def _live(_request: Request) -> JSONResponse:
    return JSONResponse({"live": True})


async def _accepts(address: Address) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
