"""Versions of models in a running TorchServe, over its management API: registered, described, scaled, drained.

Each function is one intention and safe under load; `rollout` uses them too. `address` is `host:port` of the management
API. Facts these rest on: DELETE of a version that still gets requests hangs those clients for ever, and a scale-down
kills the batch in flight; so both wait first until nothing is pending. The queue's count leaves out the batch a worker
is at, hence the settling time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from emberline.errors import EmberlineError, StageFailed
from emberline.recipe import Serve
from emberline.serve import http

READY = "READY"
STARTUP_TIMEOUT_S = 120
_ANSWER_TIMEOUT_S = 10.0
_POLL_S = 0.05
_STOPPING_TRIES = 4


class ManagementRefused(EmberlineError):
    """TorchServe said no; its own words are the fact."""

    def __init__(self, what: str, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"TorchServe answered {code}: {message}", place=what)


@dataclass(frozen=True)
class Worker:
    """One worker process of a version; a dead one that TorchServe will start again is UNLOADING.

    Attributes:
        gpu: it was given one.
    """

    id: str
    status: str
    pid: int
    gpu: bool = False


@dataclass(frozen=True)
class Described:
    """One registered version as TorchServe sees it."""

    model: str
    version: str
    url: str
    workers: tuple[Worker, ...]
    min_workers: int
    pending: int

    @property
    def num_ready(self) -> int:
        return sum(worker.status == READY for worker in self.workers)


def register(
    address: str, archive: str, settings: Serve, *, name: str | None = None, startup_timeout_s: int = STARTUP_TIMEOUT_S
) -> None:
    """Registers an archive of the model store and returns when all its workers have loaded it.

    Call it for one version of a model after the other: side by side, TorchServe loses one of them. To start workers of
    several versions side by side, register each with 0 workers and `scale` them.

    Args:
        archive: file name inside TorchServe's model store.
        settings: all of it goes as query parameters: `maxBatchDelay: 0` in an archive's own configuration would
            silently become 100 ms.
        name: of the model, where it is to be another than the archive says.

    Raises:
        ManagementRefused: the archive cannot be read (400), a worker cannot load it (500; nothing stays registered),
            or the version is registered already (409).
    """
    parameters: dict[str, str | int] = {
        "url": archive,
        "initial_workers": settings.workers,
        "batch_size": settings.batch_size,
        "max_batch_delay": settings.batch_delay_ms,
        "response_timeout": settings.response_timeout_s,
        "startup_timeout": startup_timeout_s,
        "synchronous": "true",
        **({} if name is None else {"model_name": name}),
    }
    _ask(address, "POST", "/models", parameters, timeout_s=startup_timeout_s + _ANSWER_TIMEOUT_S)


def describe(address: str, model: str, version: str) -> Described | None:
    """One version, or None where it is not registered."""
    try:
        answer = _ask(address, "GET", _path(model, version), {})
    except ManagementRefused as refusal:
        if refusal.code == httpx.codes.NOT_FOUND:
            return None
        raise
    return _described(answer[0])


def described_all(address: str, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> tuple[Described, ...]:
    """Every registered version of every model."""
    listed = _ask(address, "GET", "/models", {"limit": "1000"}, timeout_s=timeout_s)["models"]
    names = dict.fromkeys(entry["modelName"] for entry in listed)
    found = []
    for name in names:
        try:
            entries = _ask(address, "GET", f"{_path(name)}/all", {}, timeout_s=timeout_s)
            found += [_described(entry) for entry in entries]
        except ManagementRefused as refusal:
            if refusal.code != httpx.codes.NOT_FOUND:  # unregistered between the two questions
                raise
    return tuple(found)


def scale(address: str, model: str, version: str, workers: int, *, timeout_s: float = 60.0) -> None:
    """Sets the number of workers; a scale-down first waits until the version is idle.

    Raises:
        StageFailed: it did not become idle in time; nothing was changed.
    """
    now = describe(address, model, version)
    if now is None:
        raise ManagementRefused(f"{model} {version}", httpx.codes.NOT_FOUND, "not registered")
    if workers < len(now.workers):
        wait_idle(address, model, version, timeout_s=timeout_s)
    _resize(address, model, version, workers, timeout_s)


def shed(address: str, model: str, version: str, workers: int, kill: Callable[[int], None]) -> None:
    """Takes workers away from a version that always has requests under way.

    TorchServe's own scale-down answers the batch in flight with 500, which nobody may repeat. A worker that dies
    answers 507, which the router repeats: so the last one is killed first, and taken away before it is started again.

    Args:
        kill: ends a worker's process at once.
    """
    while (now := describe(address, model, version)) is not None and len(now.workers) > workers:
        if now.workers[-1].status == READY:
            kill(now.workers[-1].pid)
        _resize(address, model, version, len(now.workers) - 1, 60.0)


def revive(address: str, model: str, version: str, workers: int, *, timeout_s: float = 130.0) -> None:
    """Starts workers anew after TorchServe gave up on them; for a version none of whose workers is alive."""
    _resize(address, model, version, 0, timeout_s)
    _resize(address, model, version, workers, timeout_s)


def wait_idle(address: str, model: str, version: str, *, settle_s: float = 0.5, timeout_s: float = 60.0) -> None:
    """Waits until nothing has been pending for `settle_s` without a break; True at once where it is not registered.

    Raises:
        StageFailed: requests were still pending at the deadline.
    """
    deadline = time.monotonic() + timeout_s
    idle_since: float | None = None
    while True:
        now = describe(address, model, version)
        if now is None:
            return
        moment = time.monotonic()
        idle_since = (idle_since or moment) if now.pending == 0 else None
        if idle_since is not None and moment - idle_since >= settle_s:
            return
        if moment >= deadline:
            raise StageFailed(
                f"{model} {version}",
                f"{now.pending} requests were still pending after {timeout_s:g} s",
                hint="give the version weight 0 first: a version that still gets requests is never idle",
            )
        time.sleep(_POLL_S)


def drain_and_unregister(
    address: str, model: str, version: str, *, settle_s: float = 0.5, timeout_s: float = 60.0
) -> None:
    """Unregisters a version that traffic has left; done already counts as done.

    Call it after the version's weight is 0 and the router's active requests to it are 0.

    Raises:
        StageFailed: requests were still pending at the deadline; the version stays.
    """
    wait_idle(address, model, version, settle_s=settle_s, timeout_s=timeout_s)
    try:
        _delete(address, model, version)
    except ManagementRefused as refusal:
        if refusal.code != httpx.codes.FORBIDDEN:
            raise
        # the default of several versions cannot go: another becomes the default, unseen by all who name versions
        others = [one.version for one in described_all(address) if one.model == model and one.version != version]
        _ask(address, "PUT", f"{_path(model, others[-1])}/set-default", {})
        _delete(address, model, version)


def _delete(address: str, model: str, version: str) -> None:
    """Unregisters a version; one that is not there counts as done."""
    try:
        _ask_stopping(address, "DELETE", _path(model, version), {})
    except ManagementRefused as refusal:
        if refusal.code != httpx.codes.NOT_FOUND:
            raise


def _resize(address: str, model: str, version: str, workers: int, timeout_s: float) -> None:
    parameters: dict[str, str | int] = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
    _ask_stopping(address, "PUT", _path(model, version), parameters, timeout_s=timeout_s)


def _ask_stopping(
    address: str, method: str, path: str, parameters: Mapping[str, str | int], *, timeout_s: float = _ANSWER_TIMEOUT_S
) -> None:
    """Asks for what may stop workers, again where TorchServe tripped over itself.

    Its thread that waits for a stopped worker is now and then interrupted by that worker's own end: TorchServe answers
    500, the worker is gone, and what else was asked for was not done. Asking again is safe: both requests name a goal.
    """
    for _ in range(_STOPPING_TRIES - 1):
        try:
            _ask(address, method, path, parameters, timeout_s=timeout_s)
        except ManagementRefused as refusal:
            if refusal.code != httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            time.sleep(_POLL_S)
        else:
            return
    _ask(address, method, path, parameters, timeout_s=timeout_s)


def _path(model: str, version: str | None = None) -> str:
    return f"/models/{quote(model, safe='')}" + (f"/{quote(version, safe='')}" if version else "")


def _described(raw: Mapping[str, Any]) -> Described:
    return Described(
        model=raw["modelName"],
        version=raw["modelVersion"],
        url=raw["modelUrl"],
        workers=tuple(Worker(w["id"], w["status"], int(w["pid"]), w.get("gpu", False)) for w in raw["workers"]),
        min_workers=int(raw["minWorkers"]),
        pending=int(raw["jobQueueStatus"]["pendingRequests"]),
    )


def _ask(
    address: str, method: str, path: str, parameters: Mapping[str, str | int], *, timeout_s: float = _ANSWER_TIMEOUT_S
) -> Any:
    what = f"{method} http://{address}{path}"
    try:
        answer = http.CLIENT.request(method, f"http://{address}{path}", params=dict(parameters), timeout=timeout_s)
    except httpx.HTTPError as error:
        raise StageFailed(what, f"TorchServe's management API gave no answer: {error!r}") from error
    if answer.is_error:
        raise ManagementRefused(what, answer.status_code, _message(answer))
    return answer.json()


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip() or "no reason given"
