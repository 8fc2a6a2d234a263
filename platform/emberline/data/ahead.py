"""Reading ahead: what is asked for next is read and decoded by threads while the caller computes.

One thread reads, in the order of the asking, so files are gone through as if nobody read ahead; several decode. The
threads change when a value is read, never which: what is asked for out of turn is read at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")
V = TypeVar("V")


class Ahead(Generic[K, R, V]):
    """Values by key, the next few of them made beforehand.

    Args:
        read: what a value is made of; called by one thread at a time, key after key.
        decode: makes the value; called by several threads at a time. What either raises is raised where the value is
            asked for.
        following: the key that is asked for after another; None after the last.
        threads: how many decode; 0 reads and decodes when asked.
        depth: how many values are kept ready, which is what they cost in memory.
    """

    def __init__(
        self, read: Callable[[K], R], decode: Callable[[R], V], following: Callable[[K], K | None], *,
        threads: int, depth: int,
    ) -> None:  # fmt: skip
        self._read, self._decode, self._following = read, decode, following
        self._threads, self._depth = threads, depth
        # made at the first use: a fork before that has nothing to lose
        self._pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor] | None = None
        self._pending: OrderedDict[K, tuple[Future[R], Future[V]]] = OrderedDict()

    def __call__(self, key: K) -> V:
        if not self._threads:
            return self._decode(self._read(key))
        if key not in self._pending:
            self.forget()
            self._submit(key)
        while next(iter(self._pending)) != key:  # passed over: nobody will ask for it
            _cancel(self._pending.popitem(last=False)[1])
        self._fill()
        return self._pending.pop(key)[1].result()

    def forget(self) -> None:
        """Lets go of what was read ahead."""
        for futures in self._pending.values():
            _cancel(futures)
        self._pending.clear()

    def _fill(self) -> None:
        last = next(reversed(self._pending))
        while len(self._pending) <= self._depth and (key := self._following(last)) is not None:
            self._submit(key)
            last = key

    def _submit(self, key: K) -> None:
        if self._pools is None:
            self._pools = (
                ThreadPoolExecutor(1, thread_name_prefix="rows ahead"),
                ThreadPoolExecutor(self._threads, thread_name_prefix="rows ahead, decoding"),
            )
        reader, decoders = self._pools
        raw = reader.submit(self._read, key)
        self._pending[key] = raw, decoders.submit(lambda: self._decode(raw.result()))


def _cancel(futures: tuple[Future[R], Future[V]]) -> None:
    for future in reversed(futures):  # the decoding first: it waits for what is read
        future.cancel()
