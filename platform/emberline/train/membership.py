"""torchrun's rendezvous for agents that know whether the world they started is still the one that the store holds.

The stock one never looks back: an agent that was stopped for a while, and given up by the others, goes on as if it were
still in. Here each agent asks at every heartbeat, and is out when it or another node of its world is.

It is also quicker after a loss. Once a worker of another node was lost, that world is broken, so a silent agent is
given up after fewer heartbeats: one that lives loses nothing but its place in the next world, and joins the one after.
"""

import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore  # as in torch.distributed, where type checkers cannot see it
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    dynamic_rendezvous,
)
from torch.distributed.elastic.rendezvous import registry as rendezvous_registry
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import (
    DynamicRendezvousHandler,
    RendezvousSettings,
    RendezvousTimeout,
    _BackendRendezvousStateHolder,
    _NodeDesc,
)
from torch.distributed.elastic.rendezvous.utils import _delay, _matches_machine_hostname, parse_rendezvous_endpoint

from emberline.errors import EmberlineError
from emberline.train.store import ReturningStore

_DEFAULT_PORT = 29400
_PATIENCE_AT_END_S = 3.0
_TIMEOUTS = ("join", "last_call", "close", "heartbeat")
_SILENT_AFTER_LOSS = 2  # heartbeats
_POLL_S = 0.2


def _wait(seconds: float | tuple[float, float]) -> None:
    """Between two looks at the store torch waits for a second, which is most of what forming a small world takes."""
    _delay(_POLL_S if seconds == 1 else seconds)


dynamic_rendezvous._delay = _wait  # type: ignore[attr-defined]  # noqa: SLF001 - it cannot be set


class _StateHolder(_BackendRendezvousStateHolder):
    """The shared state, in which silence of others counts against them, but not when it was the store that was away.

    A node's own silence never counts: whether it is still in is for the others to say, by writing it into the store.

    Attributes:
        suspects: whether a shorter silence counts.
    """

    suspects = False

    def __init__(
        self, backend: C10dRendezvousBackend, settings: RendezvousSettings, node: _NodeDesc, store: ReturningStore
    ) -> None:
        super().__init__(backend, settings)
        self._node, self._store, self._usual = node, store, settings

    def _sanitize(self) -> None:
        attempts = self._usual.keep_alive_max_attempt
        attempts = min(attempts, _SILENT_AFTER_LOSS) if self.suspects else attempts
        self._settings = replace(self._usual, keep_alive_max_attempt=attempts)
        heartbeats, interval = self._state.last_heartbeats, self._settings.keep_alive_interval
        alive = interval * attempts
        if time.monotonic() < self._store.returned_at + alive.total_seconds():
            return
        now, own = datetime.now(UTC), heartbeats.get(self._node)
        if own is not None and own < now - alive:
            heartbeats[self._node] = now - interval  # due, not expired
        super()._sanitize()


class Rendezvous(DynamicRendezvousHandler):
    """torchrun's c10d rendezvous, with a store that may go and come back.

    Args:
        later_last_call: how long a world that is not the first waits for further nodes.

    Attributes:
        hosted: the store, where this agent serves it itself.
    """

    hosted: object = None

    def __init__(
        self, store: ReturningStore, run_id: str, settings: RendezvousSettings, local_addr: str | None,
        later_last_call: timedelta,
    ) -> None:  # fmt: skip
        backend, node = C10dRendezvousBackend(store, run_id), self._node_desc_generator.generate(local_addr)
        self._holder = _StateHolder(backend, settings, node, store)
        super().__init__(node, settings, backend.name, store, self._holder)
        self._returning, self._world = store, frozenset[_NodeDesc]()
        self._later_last_call = later_last_call

    def next_rendezvous(self) -> RendezvousInfo:
        if self._world:  # the nodes that are left are all there already
            self.settings.timeout._last_call = self._later_last_call  # noqa: SLF001 - it cannot be set
        joined = super().next_rendezvous()
        self._holder.suspects = False
        self._world = frozenset(self._state_holder.state.participants)
        return joined

    def suspect(self) -> None:
        """Another node's worker was lost, perhaps with its agent: silence counts sooner, until the next world."""
        self._holder.suspects = True

    def lost_members(self) -> list[str]:
        """Nodes of this agent's world that the others have given up, this one perhaps among them."""
        with self._heartbeat_lock:
            self._state_holder.sync()
            return sorted(map(repr, self._world - set(self._state_holder.state.participants)))

    def shutdown(self) -> bool:
        self._returning.patience_s = _PATIENCE_AT_END_S
        return super().shutdown()


def make_rendezvous(
    backend: str,
    endpoint: str,
    run_id: str,
    nodes: tuple[int, int],
    *,
    local_addr: str | None,
    conf: Mapping[str, str],
) -> RendezvousHandler:
    """The handler for an agent, whose settings mean what they mean to torchrun.

    Raises:
        EmberlineError: no store answers at the endpoint.
    """
    parameters = RendezvousParameters(backend, endpoint, run_id, *nodes, local_addr, **dict[str, Any](conf))
    if backend != "c10d" or parameters.get("store_type", "tcp") != "tcp":
        return rendezvous_registry.get_rendezvous_handler(parameters)
    host, port = parse_rendezvous_endpoint(endpoint, default_port=_DEFAULT_PORT)
    timeout_s = float(parameters.get_as_int("read_timeout", 60) or 60)
    kept = None
    if _is_host(parameters, host, port):
        kept = TCPStore(host, port, is_master=True, multi_tenant=True, wait_for_workers=False)
        port = kept.port
    try:
        store = ReturningStore(host, port, timeout_s=timeout_s)
    except dist.DistNetworkError as error:
        hint = f"start one there (emberline rendezvous --port {port}), or leave --rdzv-endpoint out on a single machine"
        raise EmberlineError("no rendezvous store answers", place=f"{host}:{port}", hint=hint) from error
    settings = RendezvousSettings(
        run_id, *nodes,
        timeout=RendezvousTimeout(*(_seconds(parameters, f"{one}_timeout") for one in _TIMEOUTS)),
        keep_alive_interval=timedelta(seconds=parameters.get_as_int("keep_alive_interval", 5) or 5),
        keep_alive_max_attempt=parameters.get_as_int("keep_alive_max_attempt", 3) or 3,
    )  # fmt: skip
    later = _seconds(parameters, "later_last_call_timeout") or settings.timeout.last_call
    handler = Rendezvous(store, run_id, settings, local_addr, later)
    handler.hosted = kept
    return handler


def _is_host(parameters: RendezvousParameters, host: str, port: int) -> bool:
    """Whether this agent serves the store itself: if asked to, or if it could and nobody does yet."""
    asked = parameters.get_as_bool("is_host")
    if asked is not None:
        return bool(asked)
    if not _matches_machine_hostname(host):
        return False
    with socket.socket() as probe:
        return port == 0 or probe.connect_ex((host, port)) != 0


def _seconds(parameters: RendezvousParameters, name: str) -> timedelta | None:
    value = parameters.get_as_int(name)
    return None if value is None else timedelta(seconds=value)
