"""Closed-loop load: as many connections as asked for, each sending its next request when it has its answer."""

import asyncio
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from emberline.errors import StageFailed
from emberline.load.connection import Connection, Target
from emberline.tune.grid import Observed

_ANSWER_TIMEOUT_S = 30.0
_OK = 200


class NothingAnswered(StageFailed):
    """Not one request was answered."""

    def __init__(self, url: str, failed: int) -> None:
        self.failed = failed
        super().__init__(url, f"answered none of {failed} requests")


@dataclass
class _Seen:
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0


def drive(url: str, body: bytes, *, connections: int, seconds: float) -> Observed:
    """Posts `body` as JSON until `seconds` have passed.

    Raises:
        NothingAnswered: not one request was.
    """
    return asyncio.run(_drive(url, body, connections, seconds))


async def _drive(url: str, body: bytes, connections: int, seconds: float) -> Observed:
    parts = urlsplit(url)
    target = Target(str(parts.hostname), int(parts.port or 80), parts.path)
    request = target.request(body)
    seen, begin = _Seen(), time.monotonic()
    end = begin + seconds
    await asyncio.gather(*(_client(target, request, end, seen) for _ in range(connections)))
    took = time.monotonic() - begin
    if not seen.latencies_ms:
        raise NothingAnswered(url, seen.failed)
    p50, p99 = np.percentile(seen.latencies_ms, (50, 99))
    return Observed(len(seen.latencies_ms) / took, float(p50), float(p99), seen.failed)


async def _client(target: Target, request: bytes, end: float, seen: _Seen) -> None:
    while time.monotonic() < end:
        try:
            connection = await Connection.open(target)
        except OSError:
            seen.failed += 1
            await asyncio.sleep(0.05)
            continue
        try:
            while time.monotonic() < end:
                began = time.monotonic()
                status = await asyncio.wait_for(connection.ask(request), _ANSWER_TIMEOUT_S)
                if status == _OK:
                    seen.latencies_ms.append(1e3 * (time.monotonic() - began))
                else:
                    seen.failed += 1
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            seen.failed += 1
        finally:
            connection.close()
