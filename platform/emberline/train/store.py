"""A client of the rendezvous store that outlives the store.

torch's own client is of no use once its connection broke. This one connects again, and where the store that answers is
a new one, tells it what this client had said to the old one. All agents do, so the new store comes to hold what
the lost one held, and a world that trains goes on untouched.
"""

import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore  # as in torch.distributed, where type checkers cannot see them

_INCARNATION = "emberline/store"
_VERSION = "{}/emberline-version"  # how often the value of a key was set by comparison, to tell the newest again
_POLL_S = 0.05
_RETRY_S = 0.1
_CONNECT = timedelta(seconds=5)


class ReturningStore(Store):
    """A store that may be away for a while, and may have forgotten everything when it is back.

    Args:
        timeout_s: how long a read waits for its key.
        patience_s: how long an operation waits for a store that does not answer.

    Attributes:
        returned_at: when this client last met a new store in place of the one it knew (monotonic); -inf if never.

    Raises:
        dist.DistNetworkError: nobody answers within `timeout_s`.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float = 60.0, patience_s: float = 600.0) -> None:
        super().__init__()
        self.patience_s, self.returned_at = patience_s, float("-inf")
        self._address, self._timeout_s = (host, port), timeout_s
        self._lock = threading.Lock()  # over connecting, not over operations: a client of torch's has a lock of its own
        self._said: dict[str, bytes] = {}
        self._added: dict[str, int] = {}
        self._compared: dict[str, tuple[int, bytes]] = {}  # version and value, as last seen
        self._incarnation = b""
        self._client = self._connect(time.monotonic() + timeout_s)

    # ---- what dist.Store asks of a store

    def set(self, key: str, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else bytes(value)
        self._call(lambda client: client.set(key, content.decode()))  # torch's own takes text alone
        self._forget_older_rounds(key)
        self._said[key] = content

    def get(self, key: str) -> bytes:
        while True:
            self.wait([key])
            value = self._call(lambda client: client.get(key) if client.check([key]) else None)
            if value is not None:  # else the store was lost in between
                return bytes(value)

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        return [self.get(key) for key in keys]

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.set(key, value)

    def add(self, key: str, amount: int) -> int:
        total = int(self._call(lambda client: client.add(key, amount)))
        self._added[key] = self._added.get(key, 0) + amount
        return total

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        now = bytes(self._call(lambda client: client.compare_set(key, expected, desired)))
        known, value = self._compared.get(key, (0, b""))
        if now != value:  # set by this client just now, or by another since it last looked
            ours = now == desired.encode()
            self._compared[key] = known + 1, now  # before anything that may fail
            version = int(self._call(lambda client: client.add(_VERSION.format(key), int(ours))))
            self._compared[key] = max(known + 1, version), now
        return now

    def check(self, keys: Sequence[str]) -> bool:
        return bool(self._call(lambda client: client.check(list(keys))))

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Asks again and again instead of blocking, which would keep this process's heartbeats from the store."""
        limit_s = self._timeout_s if timeout is None else timeout.total_seconds()
        deadline = time.monotonic() + limit_s
        while not self.check(keys):
            if time.monotonic() >= deadline:
                raise dist.DistStoreError(f"wait timeout after {limit_s * 1000:.0f}ms, keys: {', '.join(keys)}")
            time.sleep(_POLL_S)

    def delete_key(self, key: str) -> bool:
        self._said.pop(key, None)
        self._added.pop(key, None)
        return bool(self._call(lambda client: client.delete_key(key)))

    def num_keys(self) -> int:
        return int(self._call(lambda client: client.num_keys()))

    def set_timeout(self, timeout: timedelta) -> None:
        self._timeout_s = timeout.total_seconds()

    @property
    def timeout(self) -> timedelta:
        return timedelta(seconds=self._timeout_s)

    def has_extended_api(self) -> bool:
        return True

    # ---- what happens when it is away

    def _call(self, operation: Callable[[Any], Any]) -> Any:
        deadline = time.monotonic() + self.patience_s
        while True:
            client = self._client
            try:
                return operation(client)
            except dist.DistNetworkError:
                self._replace(client, min(deadline, time.monotonic() + self.patience_s))

    def _replace(self, broken: object, deadline: float) -> None:
        with self._lock:
            if self._client is broken:  # else another thread was here first
                self._client = self._connect(deadline)

    def _connect(self, deadline: float) -> Any:
        """A new client, after it told the store what it may have forgotten."""
        while True:
            try:
                with socket.create_connection(self._address, _RETRY_S * 10):
                    pass  # torch's own client writes pages to standard error about a store that is away
                client = TCPStore(*self._address, is_master=False, timeout=_CONNECT)
                self._tell(client)
            except (OSError, dist.DistNetworkError) as error:
                if time.monotonic() >= deadline:
                    raise dist.DistNetworkError(f"no store answers: {error}") from error
                time.sleep(_RETRY_S)
            else:
                return client

    def _tell(self, client: Any) -> None:
        incarnation = bytes(client.compare_set(_INCARNATION, "", uuid.uuid4().hex))
        if incarnation == self._incarnation:
            return
        for key, (version, value) in list(self._compared.items()):
            _set_if_newest(client, key, version, value)
        for key, value in list(self._said.items()):
            client.set(key, value.decode())
        for key, amount in list(self._added.items()):
            client.add(key, amount)
        if self._incarnation:
            self.returned_at = time.monotonic()
        self._incarnation = incarnation

    def _forget_older_rounds(self, key: str) -> None:
        """Keys of a rendezvous wear its round as their prefix; only the newest is worth saying again."""
        prefix = key.partition("/")[0]
        for known in (self._said, self._added):
            for old in [one for one in known if one.partition("/")[0] != prefix]:
                del known[old]


def _set_if_newest(client: Any, key: str, version: int, value: bytes) -> None:
    """Has the store hold a value, unless another client has a later one; clients come back in any order, and at once.

    The version goes up before the value changes, so that a client with an older one can't put it over a newer.
    """
    counter = _VERSION.format(key)
    counted = int(client.add(counter, 0))
    while counted < version:
        counted = int(client.compare_set(counter, str(counted), str(version)))
    there = bytes(client.compare_set(key, "", value.decode()))
    while there != value and version >= int(client.add(counter, 0)):
        there = bytes(client.compare_set(key, there.decode(), value.decode()))
