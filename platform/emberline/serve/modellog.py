"""A worker's own words in the model log: a version's last traceback, and which package of its archive it loaded."""

import re
from dataclasses import dataclass
from pathlib import Path

# e.g. `2026-11-22T20:46:39,337 INFO  W-9002-digits_1.1-stdout Traceback (most recent call last):`
LINE = re.compile(r"^\S+ \w+ +W-(?P<worker>\d+)-(?P<name>.+)-(?:stdout|stderr) (?P<text>.*)$")
_NOT_LOADED = ("Failed to load model", "Load model ")
_DIED = "Backend worker process died"
_STARTED = "Torch worker started."
_READ_BYTES = 1 << 20
# as the handlers' `ember_packages.load` reports them
_PASSED_OVER, _LOADED = re.compile(r"passed over (.+)"), re.compile(r"loaded (\S+ \([^)]+\)) in [\d.]+ s")


@dataclass(frozen=True)
class Loading:
    """What a version's workers say of its packages: all of them load the same, so the last to do so speaks for all.

    Attributes:
        loaded: the packages that serve, e.g. `int8.pt2 (aoti, int8)`; more than one in a cascade.
        passed_over: packages before them in the chain, and why they could not be used.
    """

    loaded: tuple[str, ...]
    passed_over: tuple[str, ...]


def size_of(path: Path) -> int:
    """Where the log ends now; lines after it are later ones."""
    return path.stat().st_size if path.is_file() else 0


def last_words(path: Path, model: str, version: str, *, since: int = 0, lines: int = 30) -> str:
    """The tail of a version's last traceback written after byte `since`, or of its output where there is none.

    Empty where its workers said nothing. A log that was rotated since is read from its start.
    """
    found = _said(path, model, version, since)
    if not found:
        return ""
    deaths = [m for m in found if m["text"].startswith((_DIED, *_NOT_LOADED))]
    worker = (deaths or found)[-1]["worker"]
    said = [m["text"] for m in found if m["worker"] == worker]
    return "\n".join(_last_failure(said)[-lines:])


def loading(path: Path, model: str, version: str, *, since: int = 0) -> Loading:
    """Which packages a version's workers loaded and passed over, told after byte `since`; empty for others' archives.

    What was loaded before a worker's last start may have been of other content.
    """
    found = _said(path, model, version, since)
    speaks = next((m["worker"] for m in reversed(found) if _LOADED.search(m["text"])), None)
    texts = [m["text"] for m in found if m["worker"] == speaks]
    starts = [i for i, text in enumerate(texts) if text == _STARTED]
    texts = texts[starts[-1] if starts else 0 :]
    loaded, passed_over = (
        tuple(m[1] for text in texts if (m := pattern.search(text))) for pattern in (_LOADED, _PASSED_OVER)
    )
    return Loading(loaded, passed_over)


def _said(path: Path, model: str, version: str, since: int) -> list[re.Match[str]]:
    if not path.is_file():
        return []
    size = path.stat().st_size
    start = max(since if since <= size else 0, size - _READ_BYTES)
    with path.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    return [m for line in text.splitlines() if (m := LINE.match(line)) and m["name"] == f"{model}_{version}"]


def _last_failure(said: list[str]) -> list[str]:
    """From what one worker said: why its last process failed.

    A process that cannot load says why, and then dies of "500 - Unknown exception", which would hide it.
    """
    died = [i for i, line in enumerate(said) if line.startswith(_DIED)]
    failed = [i for i, line in enumerate(said) if line.startswith(_NOT_LOADED)]
    if failed and (not died or failed[-1] > died[-1]):
        return said[failed[-1] :]
    if failed and (len(died) == 1 or failed[-1] > died[-2]):
        return said[failed[-1] : died[-1]]
    return said[died[-1] if died else 0 :]
