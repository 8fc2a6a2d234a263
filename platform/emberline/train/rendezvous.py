"""The rendezvous store in a process of its own, so that no agent's death takes it away from the others.

The process that was started listens and watches; a fork of it answers. When the fork dies, by SIGKILL too, the next one
takes over the same socket within milliseconds: clients that come in between wait in its queue. What the store held is
gone then; its clients say it again (`emberline.train.store`).
"""

import ctypes
import os
import signal
import socket
import sys
import time
from datetime import timedelta
from typing import NoReturn

from emberline.errors import EmberlineError
from emberline.process import require_free_port

_PR_SET_PDEATHSIG = 1
_BACKLOG = 1024
_TIMEOUT = timedelta(seconds=60)
_BREATH_S = 0.2  # between two forks, where the first could not even start
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def serve_rendezvous(host: str, port: int) -> None:
    """Serves the store until SIGTERM or Ctrl-C, replacing the process that answers whenever it dies.

    Raises:
        EmberlineError: the port is taken, or the address is none of this machine's.
    """
    if port:
        require_free_port(port, "the rendezvous store", host)
    # blocked before threads start: as a container's first process, unblocked ones would never reach sigwait
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process that forks should have no threads
    import torch.distributed  # noqa: F401 - loaded before forking, so that a new fork answers at once

    with _listen(host, port) as listener:
        print(f"rendezvous store listens on {host}:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        _watch(listener)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise EmberlineError(f"cannot listen: {error.strerror}", place=f"{host}:{port}") from error
    listener.listen(_BACKLOG)
    return listener


def _watch(listener: socket.socket) -> None:
    """Keeps one fork answering until a signal says to stop."""
    while True:
        started, pid = time.monotonic(), _fork(listener)
        if not _ended(pid):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        print(f"the store's process {pid} died; the next one takes over", file=sys.stderr, flush=True)
        if time.monotonic() - started < _BREATH_S:
            time.sleep(_BREATH_S)


def _ended(pid: int) -> bool:
    """Waits until the fork has ended; False where a signal came that asks to stop."""
    while signal.sigwait(_SIGNALS) == signal.SIGCHLD:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    return False


def _fork(listener: socket.socket) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _answer(listener, parent)
    return pid


def _answer(listener: socket.socket, parent: int) -> NoReturn:
    """The fork: ends only with its parent, or by a signal that nobody can block."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, yet not in its __all__

        host, port = listener.getsockname()[:2]
        _kept = TCPStore(
            host, port, is_master=True, wait_for_workers=False, timeout=_TIMEOUT, master_listen_fd=listener.detach()
        )
        while os.getppid() == parent:
            signal.sigtimedwait({signal.SIGUSR1}, 60)
    finally:
        os._exit(1)
