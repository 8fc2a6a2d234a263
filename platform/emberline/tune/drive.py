"""Closed-loop load: as many connections as asked for, each sending its next request when it has its answer.

Plain HTTP/1.1 over asyncio's streams: on the machine that is measured, what the load itself costs must be little.
"""

import asyncio
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from emberline.errors import StageFailed
from emberline.tune.grid import Observed

_ANSWER_TIMEOUT_S = 30.0


@dataclass
class _Seen:
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0


def drive(url: str, body: bytes, *, connections: int, seconds: float) -> Observed:
    """Posts `body` as JSON until `seconds` have passed.

    Raises:
        StageFailed: not one request was answered.
    """
    return asyncio.run(_drive(url, body, connections, seconds))


async def _drive(url: str, body: bytes, connections: int, seconds: float) -> Observed:
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    seen, begin = _Seen(), time.monotonic()
    end = begin + seconds
    await asyncio.gather(*(_client(parts.hostname, parts.port, request, end, seen) for _ in range(connections)))
    took = time.monotonic() - begin
    if not seen.latencies_ms:
        raise StageFailed(url, f"answered none of {seen.failed} requests")
    p50, p99 = np.percentile(seen.latencies_ms, (50, 99))
    return Observed(len(seen.latencies_ms) / took, float(p50), float(p99), seen.failed)


async def _client(host: str | None, port: int | None, request: bytes, end: float, seen: _Seen) -> None:
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            seen.failed += 1
            await asyncio.sleep(0.05)
            continue
        try:
            while time.monotonic() < end:
                began = time.monotonic()
                writer.write(request)
                status = await asyncio.wait_for(_answer(reader), _ANSWER_TIMEOUT_S)
                if status == b"200":
                    seen.latencies_ms.append(1e3 * (time.monotonic() - began))
                else:
                    seen.failed += 1
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            seen.failed += 1
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Reads one answer to its end; returns its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    _, _, rest = lowered.partition(b"content-length:")
    if not rest:
        raise OSError("an answer without a length")
    await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    return head.split(b" ", 2)[1]
