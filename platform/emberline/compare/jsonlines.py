"""Append-only files of one JSON object a line that survive being cut off in mid-line."""

import os
from pathlib import Path
from typing import IO, Any

import orjson

from emberline.errors import CorruptPaper

_CHUNK_BYTES = 1 << 16


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Appends one line and flushes it to disk; the rest of a line that a crash cut off is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _cut_torn_line(file)
        file.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines, oldest first; none for a file that is not there.

    Raises:
        CorruptPaper: a line is no JSON.
    """
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        if not line:
            continue
        try:
            found.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            hint = "mend that line, or move the file away to begin a new one"
            raise CorruptPaper(path, f"no JSON in line {number}", "one JSON object a line", hint=hint) from error
    return found


def _cut_torn_line(file: IO[bytes]) -> None:
    """Truncates after the last newline."""
    size = file.seek(0, os.SEEK_END)
    start = size
    while start:
        start = max(0, start - _CHUNK_BYTES)
        file.seek(start)
        if (newline := file.read(_CHUNK_BYTES).rfind(b"\n")) >= 0:
            file.truncate(start + newline + 1)
            return
    file.truncate(0)
