"""Reading ahead: what is asked for next is read and decoded by threads while the caller computes.

The threads change when a value is read, never which: what is asked for out of turn is read at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Ahead(Generic[K, V]):
    """Values by key, the next few of them made beforehand.

    Args:
        read: makes a value; called by several threads at a time. What it raises is raised where the value is asked for.
        following: the key that is asked for after another; None after the last.
        threads: how many read; 0 reads when asked.
        depth: how many values are kept ready, which is what they cost in memory.
    """

    def __init__(self, read: Callable[[K], V], following: Callable[[K], K | None], *, threads: int, depth: int) -> None:
        self._read, self._following, self._threads, self._depth = read, following, threads, depth
        self._pool: ThreadPoolExecutor | None = None  # made at the first use: a fork before that has nothing to lose
        self._pending: OrderedDict[K, Future[V]] = OrderedDict()

    def __call__(self, key: K) -> V:
        if not self._threads:
            return self._read(key)
        if key not in self._pending:
            self.forget()
            self._submit(key)
        while next(iter(self._pending)) != key:  # passed over: nobody will ask for it
            self._pending.popitem(last=False)[1].cancel()
        self._fill()
        return self._pending.pop(key).result()

    def forget(self) -> None:
        """Lets go of what was read ahead."""
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()

    def _fill(self) -> None:
        last = next(reversed(self._pending))
        while len(self._pending) <= self._depth and (key := self._following(last)) is not None:
            self._submit(key)
            last = key

    def _submit(self, key: K) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="rows ahead")
        self._pending[key] = self._pool.submit(self._read, key)
