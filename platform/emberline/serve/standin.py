"""What TorchServe starts for a worker: has it forked by `prefork`, and ends when it ends.

Run as a script with the standard library alone, `python -I -S standin.py SOCKET PYTHON ARGUMENTS…`, where
`PYTHON ARGUMENTS…` is what the worker would be without all this; and is, with a line that says so, where nobody forks.
TorchServe kills this process to end the worker: the worker's own end follows.
"""

import array
import json
import os
import socket
import struct
import sys

LENGTH = struct.Struct("!I")
CODE = struct.Struct("!i")
STANDARD_FILES = 3


def stand_in(address: str, arguments: list[str]) -> int:
    """Has a worker forked and waits for its end; returns its exit code.

    Raises:
        OSError: nobody forks workers at this address.
    """
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109 - pathlib takes 10 ms to import
    content = json.dumps(request).encode()
    files = array.array("i", range(STANDARD_FILES))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    connection.sendmsg([LENGTH.pack(len(content))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files.tobytes())])
    connection.sendall(content)
    answer = connection.recv(CODE.size)
    return int(CODE.unpack(answer)[0]) if len(answer) == CODE.size else 1


def main(address: str, python: str, arguments: list[str]) -> int:
    try:
        return stand_in(address, arguments)
    except OSError as error:
        print(f"emberline: no worker could be forked ({error}); loading torch anew", flush=True)
        os.execv(python, [python, *arguments])  # noqa: S606 - the very command that TorchServe gave


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
