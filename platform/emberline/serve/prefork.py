"""A process with torch loaded, from which TorchServe's workers are forked.

Loading torch takes a worker a second or two of CPU; forked from here it has it at once, and shares its memory. Run as
a script, `python -I prefork.py SOCKET PAGES MODULE…`. On SOCKET, `standin` hands over what a worker is to be: its
arguments, environment, folder and the three standard files. The child that is forked is that worker; when the stand-in
ends, it is killed, and when it ends, the stand-in ends with its code.

No thread is started here before a fork, and no kernel is run: torch may be forked then.
"""

import contextlib
import ctypes
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from emberline.serve.standin import CODE, LENGTH, STANDARD_FILES

_PR_SET_PDEATHSIG = 1
_BACKLOG = 256
_REQUEST_TIMEOUT_S = 5.0  # a stand-in that was stopped in the midst of its request must not hold up the others


@dataclass
class _Worker:
    """A forked worker, and the connection of the process that stands in for it."""

    pid: int
    pidfd: int
    connection: socket.socket


def main(address: str, pages: Path, modules: list[str]) -> NoReturn:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(_BACKLOG)  # who connects while the modules are loaded waits
    for name in modules:
        importlib.import_module(name)
    workers: list[_Worker] = []
    while True:
        waited: list[socket.socket | int] = [
            listener,
            *(worker.connection for worker in workers),
            *(worker.pidfd for worker in workers),
        ]
        readable, _, _ = select.select(waited, [], [])
        for worker in list(workers):
            if worker.pidfd in readable:
                _report_end(worker)
                workers.remove(worker)
            elif worker.connection in readable:  # nothing is ever said on it: its stand-in is gone
                os.kill(worker.pid, signal.SIGKILL)
        if listener in readable:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError, ValueError):  # a stand-in that died while it asked
                workers.append(_fork(connection, pages))


def _fork(connection: socket.socket, pages: Path) -> _Worker:
    wanted, files = _receive(connection)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_worker(wanted, files, pages, parent)
    for file in files:
        os.close(file)
    return _Worker(pid, os.pidfd_open(pid), connection)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    connection.settimeout(_REQUEST_TIMEOUT_S)
    head, files, _, _ = socket.recv_fds(connection, LENGTH.size, STANDARD_FILES)
    if len(head) < LENGTH.size or len(files) < STANDARD_FILES:
        raise ValueError("the stand-in ended before it asked")
    (length,) = LENGTH.unpack(head)
    content = bytearray()
    while len(content) < length:
        piece = connection.recv(length - len(content))
        if not piece:
            raise ValueError("the stand-in ended in the midst of its request")
        content += piece
    return json.loads(content), files


def _become_worker(wanted: dict[str, Any], files: list[int], pages: Path, parent: int) -> NoReturn:
    """In the child: the process that `python SCRIPT ARGUMENTS…` would be, with its modules loaded already."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(STANDARD_FILES, 1 << 16)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        os.chdir(wanted["folder"])
        _reseed()
        from emberline.serve import worker

        code = worker.run(wanted["arguments"], pages)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _reseed() -> None:
    """Forked workers must not draw the same random numbers."""
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()


def _report_end(worker: _Worker) -> None:
    _, status = os.waitpid(worker.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        worker.connection.sendall(CODE.pack(code if code >= 0 else 128 - code))
    worker.connection.close()
    os.close(worker.pidfd)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
