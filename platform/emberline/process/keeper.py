"""Stands between a parent and a program it started, so that the program never outlives its parent.

Run as a script, with the standard library alone: `python -I -S keeper.py LIFE_FD PID_FD GRACE_S COMMAND…`. It starts
the command in a session of its own, reports its pid on PID_FD, passes SIGTERM and SIGINT on, and exits with its code.
When LIFE_FD reads end-of-file (the parent is gone, SIGKILL included) it sends SIGTERM, waits GRACE_S, then SIGKILL; a
byte read from it instead releases the command, which then lives on without the parent. Whatever the command leaves
behind is adopted (PR_SET_CHILD_SUBREAPER) and killed, so a JVM's workers go with the JVM.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.25


def main() -> int:
    life_fd, pid_fd, grace_s, command = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        # the keeper has one thread, so its child may ask to die with it (the signal follows the *thread* that forked)
        child = subprocess.Popen(
            command,
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),  # noqa: PLW1509 - no threads here
        )
    except OSError as error:
        os.write(pid_fd, f"error {error.errno} {error.strerror}\n".encode())
        return 127

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    # only now: from here on the parent may send signals
    os.write(pid_fd, f"pid {child.pid}\n".encode())
    os.close(pid_fd)
    _wait(child, life_fd, grace_s)
    _kill_adopted(child.pid)
    code = child.returncode
    return code if code >= 0 else 128 - code


def _wait(child: "subprocess.Popen[bytes]", life_fd: int, grace_s: float) -> None:
    """Returns when the child has ended, ending it once the parent is gone."""
    parent = os.getppid()
    deadline: float | None = None
    released = False
    while child.poll() is None:
        if released:
            child.wait()
        elif deadline is None:
            readable, _, _ = select.select([life_fd], [], [], _POLL_S)
            released = bool(readable and os.read(life_fd, 1))
            if not released and (readable or os.getppid() != parent):
                child.terminate()
                deadline = time.monotonic() + grace_s
        else:
            time.sleep(_POLL_S)
            if time.monotonic() > deadline:
                child.kill()


def _kill_adopted(session: int) -> None:
    """Kills what the child left: its process group, then every process that was handed to this one."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:  # noqa: PTH123 - no pathlib here
        return [int(pid) for pid in file.read().split()]


if __name__ == "__main__":
    sys.exit(main())
