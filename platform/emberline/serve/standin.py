"""What TorchServe starts for a worker: has it forked by `prefork`, and ends when it ends.

Run as a script with the standard library alone, `python -I -S standin.py SOCKET WAIT_S PYTHON ARGUMENTS…`,
where `PYTHON ARGUMENTS…` is what the worker would be without all this; and is, with a line that says so, where nobody
forks for WAIT_S seconds.
TorchServe kills this process to end the worker: the worker's own end follows.
"""

import array
import json
import os
import socket
import struct
import sys
import time

LENGTH = struct.Struct("!I")
CODE = struct.Struct("!i")
STANDARD_FILES = 3
_EVERY_S = 0.02


def stand_in(connection: socket.socket, arguments: list[str]) -> int:
    """Has a worker forked and waits for its end; returns its exit code."""
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109 - pathlib takes 10 ms to import
    content = json.dumps(request).encode()
    files = array.array("i", range(STANDARD_FILES))
    connection.sendmsg([LENGTH.pack(len(content))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files.tobytes())])
    connection.sendall(content)
    answer = connection.recv(CODE.size)
    return int(CODE.unpack(answer)[0]) if len(answer) == CODE.size else 1


def connect(address: str, wait_s: float) -> socket.socket:
    """A connection to who forks workers, who may be only just starting.

    Raises:
        OSError: nobody does, all the time.
    """
    deadline = time.monotonic() + wait_s
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(_EVERY_S)
        else:
            return connection


def main(address: str, wait_s: float, python: str, arguments: list[str]) -> int:
    try:
        connection = connect(address, wait_s)
    except OSError as error:
        print(f"emberline: no worker could be forked ({error}); loading torch anew", flush=True)
        os.execv(python, [python, *arguments])  # noqa: S606 - the very command that TorchServe gave
    return stand_in(connection, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
