"""Child processes that end with their parent, and the conditions one waits for around them.

Every program emberline starts (java, envoy, verbs, simulators) goes through `start`; training workers belong to
torchrun's agent and look after their own parent.
"""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from emberline.errors import EmberlineError, InvalidOption, StageFailed

T = TypeVar("T")
_KEEPER = Path(__file__).with_name("keeper.py")


class Child:
    """A running program, with the keeper that ends it should this process die.

    Attributes:
        name: what messages call it.
        pid: of the program itself, not of its keeper.
    """

    def __init__(self, name: str, pid: int, keeper: "subprocess.Popen[bytes]", life_fd: int) -> None:
        self.name, self.pid = name, pid
        self._keeper, self._life_fd = keeper, life_fd
        self._session_ended = False

    def poll(self) -> int | None:
        """The exit code, 128 + signal for a death by signal, or None while it runs."""
        code = self._keeper.poll()
        return code if code is None or code >= 0 else self._without_keeper(code)

    def wait(self, timeout_s: float | None = None) -> int:
        code = self._keeper.wait(timeout_s)
        return code if code >= 0 else self._without_keeper(code)

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def stop(self, grace_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after `grace_s`; returns when the program and all it started are gone."""
        if self.poll() is None:
            self._keeper.send_signal(signal.SIGTERM)
        try:
            code = self.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            code = self.wait()
        if self._life_fd >= 0:
            os.close(self._life_fd)
            self._life_fd = -1
        return code

    def _without_keeper(self, code: int) -> int:
        """The keeper itself was killed: the child died with it, what the child started in its session dies here."""
        if not self._session_ended:
            self._session_ended = True  # once: the number may belong to somebody else later
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return 128 - code

    def release(self) -> None:
        """Lets the program live on after this process; from now on its own verb for stopping ends it."""
        os.write(self._life_fd, b"r")
        os.close(self._life_fd)
        self._life_fd = -1


def start(
    command: Sequence[str | Path],
    *,
    name: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | IO[bytes] | None = None,
    grace_s: float = 5.0,
) -> Child:
    """Starts a program that will not outlive this process.

    Args:
        command: program and arguments; nothing goes through a shell.
        log: file that gets standard output and error, appended; None inherits this process's.
        grace_s: seconds between SIGTERM and SIGKILL once this process has died.

    Raises:
        StageFailed: the program could not be started.
    """
    life_read, life_write = os.pipe()
    pid_read, pid_write = os.pipe()
    output = log.open("ab") if isinstance(log, Path) else log
    try:
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", _KEEPER, str(life_read), str(pid_write), str(grace_s), *command],
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(life_read, pid_write),
            start_new_session=True,  # a Ctrl-C on the terminal is for this process, which stops its children in order
        )
    except OSError as error:  # of the keeper's own start: the working directory is not there, or no process can be made
        os.close(life_write)
        os.close(pid_read)
        raise StageFailed(name, f"{command[0]} did not start: {error.strerror}: {error.filename}") from error
    finally:
        os.close(life_read)
        os.close(pid_write)
        if isinstance(log, Path) and output is not None:
            output.close()
    with os.fdopen(pid_read) as report:
        word, _, rest = report.readline().strip().partition(" ")
    if word != "pid":
        os.close(life_write)
        keeper.wait()
        raise StageFailed(name, f"{command[0]} did not start: {rest or 'its keeper died'}")
    return Child(name, int(rest), keeper, life_write)


def peak_bytes() -> int:
    """The most memory that this program has held (its resident set); a fork starts at what it inherited.

    `getrusage` would tell a larger parent's peak, which a process keeps when it becomes another program.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on now. Another process may take it before it is used: callers report that clearly."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_free_port(port: int, what: str, host: str = "127.0.0.1") -> None:
    """Raises a clear error when nobody can listen on `host:port`.

    Raises:
        EmberlineError: somebody else listens there.
        InvalidOption: it is no port number, or no address of this machine that this user may listen on.
    """
    if not 0 <= port < 1 << 16:
        raise InvalidOption(what, "the port", port, "a number from 0 to 65535", hint="0 picks a free one")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EmberlineError(
                f"port {port} is in use; {what} needs it",
                place=f"{host}:{port}",
                hint="stop what listens there, or choose another port",
            ) from error
        required = f"one that can be listened on here ({error.strerror})"
        hint = "127.0.0.1 is for this machine alone, 0.0.0.0 for all that reach it"
        raise InvalidOption(what, "the address", f"{host}:{port}", required, hint=hint) from error


def wait_until(condition: Callable[[], T | None], timeout_s: float, what: str, *, every_s: float = 0.05) -> T:
    """Polls until `condition()` is truthy and returns that value.

    Raises:
        StageFailed: the deadline passed; names `what` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() >= deadline:
            raise StageFailed(what, f"did not happen within {timeout_s:g} s")
        time.sleep(every_s)
