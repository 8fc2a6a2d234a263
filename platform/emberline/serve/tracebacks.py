"""Every traceback that a worker prints, as it appears in the model log, for the structured log."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from emberline.serve.modellog import LINE

_BEGIN = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class Traceback:
    """What one worker said of one exception.

    Attributes:
        name: of the version, as TorchServe calls its workers: `digits_1.0`.
    """

    name: str
    text: str


class Tracebacks:
    """Follows a log that is rotated by renaming it to `<name>.1`; used by one thread."""

    def __init__(self, path: Path, *, since: int = 0) -> None:
        self._path, self._offset = path, since
        self._open: dict[tuple[str, str], list[str]] = {}

    def look(self) -> Counter[Traceback]:
        """Tracebacks that ended since the last look, each with how often it came."""
        found: Counter[Traceback] = Counter()
        for line in self._new_lines():
            if (match := LINE.match(line)) is not None:
                found.update(self._take((match["worker"], match["name"]), match["text"]))
        return found

    def _take(self, worker: tuple[str, str], text: str) -> list[Traceback]:
        """One more line of a worker; a traceback ends with the line that names the exception."""
        lines = self._open.get(worker)
        if lines is None:
            if text == _BEGIN:
                self._open[worker] = [text]
            return []
        lines.append(text)
        if text.startswith((" ", "\t")) or text in ("", _BEGIN) or text.startswith(_CHAINED):
            return []
        del self._open[worker]
        return [Traceback(worker[1], "\n".join(lines))]

    def _new_lines(self) -> list[str]:
        if not self._path.is_file():
            return []
        content = b""
        if self._path.stat().st_size < self._offset:  # rotated: the rest of the old file comes first
            old = self._path.with_name(f"{self._path.name}.1")
            content = _read(old, self._offset) if old.is_file() else b""
            self._offset = 0
        fresh = _read(self._path, self._offset)
        complete = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(complete)
        return (content + complete).decode(errors="replace").splitlines()


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(_READ_BYTES)
