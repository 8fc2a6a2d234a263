"""The peak of memory that one candidate takes, in a process of its own."""

import os
from collections.abc import Callable
from typing import Any

from emberline import process

_CALLS = 2


def peak_mb(open_program: Callable[[], Callable[[Any], Any]], batch: Any) -> float | None:
    """Megabytes that a forked process has held at most: PyTorch, the candidate, and a batch going through it.

    None where the child ended otherwise than by answering; what ails a candidate shows when it is opened here.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _answer_and_exit(open_program, batch, write)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        content = answers.read()
    _, status = os.waitpid(child, 0)
    return float(content) if status == 0 and content else None


def _answer_and_exit(open_program: Callable[[], Callable[[Any], Any]], batch: Any, write: int) -> None:
    """The forked child: no way back into the parent's program."""
    code = 1
    try:
        program = open_program()
        for _ in range(_CALLS):
            program(batch)
        os.write(write, str(process.peak_bytes() / 1e6).encode())
        code = 0
    finally:
        os._exit(code)
