"""Requests on their way, each sent when it is due.

A request that is due while others are under way gets a connection of its own. Its latency counts from when it was due:
a server that stalls then shows in all requests that were due meanwhile, and not in the one that met the stall alone.
That is what corrects for coordinated omission, with nothing to be estimated afterwards.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emberline.errors import StageFailed
from emberline.load.bodies import Body
from emberline.load.connection import Connection, Target

NO_ANSWER = 0
_SPIN_S = 0.001  # asyncio wakes up to so late; the rest is waited for in small turns, which cost CPU and keep time


@dataclass(frozen=True)
class Sample:
    """One request; times in seconds from the load's start.

    Attributes:
        due: when it had to leave.
        sent: when it did.
        ended: when its answer was read, or was given up.
        status: of the answer; `NO_ANSWER` where none came.
    """

    due: float
    sent: float
    ended: float
    status: int


def arrivals(rate: float, seconds: float, *, seed: int, even: bool = False) -> NDArray[np.float64]:
    """When requests are due: as independent clients come (Poisson), or evenly."""
    if even:
        return np.arange(int(rate * seconds)) / rate
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=int(rate * seconds * 1.5 + 50))
    times = np.cumsum(gaps)
    return times[times < seconds]


def drive(
    target: Target,
    bodies: Sequence[Body],
    due: NDArray[np.float64],
    *,
    timeout_s: float,
    max_connections: int,
    unit_header: str = "x-unit-id",
    advance: Callable[[int], None] = lambda _: None,
) -> list[Sample]:
    """Sends one request for each moment of `due`, bodies in turns; returns when the last was answered or given up.

    Args:
        timeout_s: after which a request is given up, from when it was sent.
        max_connections: a request that would need one more waits, which counts in its latency.
        unit_header: each request says in it that it is for another unit.
        advance: is told of each request that ended.

    Raises:
        StageFailed: not one request was answered.
    """
    load = _Load(
        target=target,
        bodies=bodies,
        timeout_s=timeout_s,
        max_connections=max_connections,
        unit_header=unit_header,
        advance=advance,
    )
    samples = asyncio.run(load.run(due))
    if all(one.status == NO_ANSWER for one in samples):
        address = f"{target.host}:{target.port}"
        raise StageFailed(address, f"answered none of {len(samples)} requests", hint="is the router up?")
    return samples


class _Load:
    def __init__(
        self,
        *,
        target: Target,
        bodies: Sequence[Body],
        timeout_s: float,
        max_connections: int,
        unit_header: str,
        advance: Callable[[int], None],
    ) -> None:
        self._target, self._bodies, self._timeout_s = target, bodies, timeout_s
        self._unit_header, self._advance = unit_header, advance
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(max_connections)
        self._samples: list[Sample] = []
        self._began = 0.0

    async def run(self, due: NDArray[np.float64]) -> list[Sample]:
        self._began = time.perf_counter()
        asked = set()
        for number, moment in enumerate(due.tolist()):
            await self._until(moment)
            task = asyncio.create_task(self._ask(number, moment))
            asked.add(task)
            task.add_done_callback(asked.discard)
        while asked:
            await asyncio.wait(asked)
        for connection in self._idle:
            connection.close()
        return self._samples

    async def _until(self, moment: float) -> None:
        while (left := moment - self._now()) > 0:  # noqa: ASYNC110 - time is what is waited for
            await asyncio.sleep(left - _SPIN_S if left > 2 * _SPIN_S else 0)

    def _now(self) -> float:
        return time.perf_counter() - self._began

    async def _ask(self, number: int, due: float) -> None:
        body = self._bodies[number % len(self._bodies)]
        unit = f"{self._unit_header}: load-{number}\r\n"
        request = self._target.request(body.content, body.content_type, unit)
        async with self._room:
            sent = self._now()
            status = await self._answered(request)
        self._samples.append(Sample(due, sent, self._now(), status))
        self._advance(1)

    async def _answered(self, request: bytes) -> int:
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = self._idle.pop() if self._idle else await Connection.open(self._target)
                status = await connection.ask(request)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            if connection is not None:
                connection.close()
            return NO_ANSWER
        if connection.is_over:
            connection.close()
        else:
            self._idle.append(connection)
        return status
