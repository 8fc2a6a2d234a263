"""A worker's own words: the last traceback a version's workers left in the model log."""

import re
from pathlib import Path

# e.g. `2026-11-22T20:46:39,337 INFO  W-9002-digits_1.1-stdout Traceback (most recent call last):`
_LINE = re.compile(r"^\S+ \w+ +W-(?P<worker>\d+)-(?P<name>.+)-(?:stdout|stderr) (?P<text>.*)$")
_DIED = ("Backend worker process died", "Failed to load model", "Load model ")
_READ_BYTES = 1 << 20


def size_of(path: Path) -> int:
    """Where the log ends now; lines after it are later ones."""
    return path.stat().st_size if path.is_file() else 0


def last_words(path: Path, model: str, version: str, *, since: int = 0, lines: int = 30) -> str:
    """The tail of a version's last traceback written after byte `since`, or of its output where there is none.

    Empty where its workers said nothing. A log that was rotated since is read from its start.
    """
    if not path.is_file():
        return ""
    size = path.stat().st_size
    start = max(since if since <= size else 0, size - _READ_BYTES)
    with path.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    found = [m for line in text.splitlines() if (m := _LINE.match(line)) and m["name"] == f"{model}_{version}"]
    if not found:
        return ""
    deaths = [m for m in found if m["text"].startswith(_DIED)]
    worker = (deaths or found)[-1]["worker"]
    said = [m["text"] for m in found if m["worker"] == worker]
    begin = max((i for i, line in enumerate(said) if line.startswith(_DIED)), default=0)
    return "\n".join(said[begin:][-lines:])
