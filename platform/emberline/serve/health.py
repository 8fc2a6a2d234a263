"""The health port: /livez, /readyz with a line a version, and /metrics with TorchServe's own behind ours."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import httpx
import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emberline import process
from emberline.errors import EmberlineError
from emberline.serve.page import BATCH_BOUNDS, SECONDS_BOUNDS, STATUSES
from emberline.serve.status import Board

_VERSION = ["model_name", "model_version"]
_METRICS_TIMEOUT_S = 5.0


class Metrics:
    """Our metrics in a registry of their own; gauges are read off the board when somebody asks."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.registry = CollectorRegistry()
        self.probe_seconds = Histogram(
            "emberline_probe_seconds", "Time of a probe prediction.", _VERSION, registry=self.registry
        )
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Prometheus' protocol for a collector."""
        status = self._board.status
        ready = GaugeMetricFamily("emberline_version_ready", "1 when the version answers rightly.", labels=_VERSION)
        workers = GaugeMetricFamily("emberline_workers", "Workers by state.", labels=[*_VERSION, "status"])
        pending = GaugeMetricFamily("emberline_pending_requests", "Requests in the queue.", labels=_VERSION)
        lost = CounterMetricFamily("emberline_lost_workers", "Worker processes that ended.", labels=_VERSION)
        batches = HistogramMetricFamily("emberline_batch_size", "Requests in a batch.", labels=_VERSION)
        seconds = HistogramMetricFamily(
            "emberline_batch_seconds", "Time from a batch's arrival at its worker to its answers.", labels=_VERSION
        )
        answers = CounterMetricFamily(
            "emberline_answers", "Answers of the workers by class of status.", labels=[*_VERSION, "status"]
        )
        for one in status.versions:
            labels = [one.model, one.version]
            batches.add_metric(labels, _buckets(BATCH_BOUNDS, one.counts.batches), one.counts.rows)
            seconds.add_metric(labels, _buckets(SECONDS_BOUNDS, one.counts.durations), one.counts.seconds)
            for name, number in zip(STATUSES, one.counts.statuses, strict=True):
                answers.add_metric([*labels, name], number)
            ready.add_metric(labels, float(one.ready))
            pending.add_metric(labels, one.pending)
            lost.add_metric(labels, one.lost_workers)
            for name, count in one.workers.items():
                workers.add_metric([*labels, name], count)
        total = GaugeMetricFamily("emberline_versions_ready", "Versions that answer rightly.")
        total.add_metric([], sum(one.ready for one in status.versions))
        restarts = CounterMetricFamily("emberline_torchserve_restarts", "Restarts of TorchServe.")
        restarts.add_metric([], status.torchserve_restarts)
        yield from (ready, workers, pending, lost, total, restarts, batches, seconds, answers)


def _buckets(bounds: Sequence[float], numbers: Sequence[int]) -> list[tuple[str, float]]:
    """Prometheus' buckets, each with all that is below its bound."""
    return list(zip([*map(str, map(float, bounds)), "+Inf"], accumulate(numbers), strict=True))


def application(board: Board, metrics: Metrics, torchserve_metrics: str) -> Starlette:
    """The health port as an ASGI application."""
    # made once: a client's certificates, which plain HTTP never uses, cost 20 ms a scrape
    client = httpx.AsyncClient(
        timeout=_METRICS_TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
    )

    async def livez(_request: Request) -> Response:
        return JSONResponse({"live": True})

    async def readyz(_request: Request) -> Response:
        status = board.status
        return Response(orjson.dumps(status.as_json()), 200 if status.ready else 503, media_type="application/json")

    async def metrics_text(_request: Request) -> Response:
        ours = generate_latest(metrics.registry)
        return Response(ours + await _metrics_of(client, torchserve_metrics), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics_text)])


@contextmanager
def served(app: Starlette, port: int) -> Iterator[None]:
    """Serves an application on loopback from a thread of its own while the block runs."""
    # no handler for signals: the thread that supervises decides when all of it ends
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, name="health", daemon=True)
    thread.start()

    def is_up() -> bool:
        if not thread.is_alive():
            raise EmberlineError("the health port could not be opened", place=f"127.0.0.1:{port}")
        return server.started

    process.wait_until(is_up, 20.0, "the health port")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=5.0)


async def _metrics_of(client: httpx.AsyncClient, address: str) -> bytes:
    """TorchServe's own metrics; a comment that says so where it cannot be asked, as while it restarts."""
    try:
        answer = (await client.get(f"http://{address}/metrics")).raise_for_status()
    except httpx.HTTPError as error:
        return f"# TorchServe's own metrics are missing: {error!r}\n".encode()
    return answer.content
