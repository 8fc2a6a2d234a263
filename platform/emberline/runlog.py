"""What a long piece of work shows while it goes on: a live view on a terminal, plain lines elsewhere.

Every event also goes into a JSON-lines file, which is what reports and the README's blocks are made from.
"""

import errno
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_EVERY_S = 5.0
_STILL_EVERY_S = 15.0
SERVER_MAX_BYTES = 64 * 2**20
"""How long a log of a process that runs for months may grow, twice."""


class Advance(Protocol):
    def __call__(self, amount: float = 1, total: float | None = None, /, **facts: object) -> None:
        """Counts on; `total` where it was not known before."""


def _append(path: Path, line: bytes) -> int:
    """Appends a whole line or nothing; the file's size after it."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        if file.write(line) < len(line):
            file.truncate(before)  # half a line would spoil the next one as well
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return before + len(line)


class RunLog:
    """Events of one run, appended to a file a process may share with its restarts.

    Args:
        path: the JSON-lines file, or None to keep nothing.
        quiet: writes the file but prints nothing (worker ranks other than 0).
        needed: whether an event that cannot be written, as on a full disk, ends the work; a server goes on instead, and
            says once that events are lost.
        max_bytes: a log that has grown beyond is set aside as `NAME.1`, in place of the one before, and then must be
            one process's; None: it only grows.
    """

    def __init__(
        self, path: Path | None = None, *, quiet: bool = False, needed: bool = True, max_bytes: int | None = None
    ) -> None:
        self.path = path
        self._needed, self._loses, self._max_bytes = needed, False, max_bytes
        self._said = 0.0
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True, highlight=False, emoji=False)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def event(self, name: str, **facts: Any) -> None:
        """Appends one line; a single write of a short line is atomic, so processes may share the file."""
        if self.path is None:
            return
        line = orjson.dumps(
            {"time": time.time(), "event": name, **facts}, option=orjson.OPT_APPEND_NEWLINE, default=str
        )
        try:
            if _append(self.path, line) > (self._max_bytes or math.inf):
                self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        except OSError as error:
            if self._needed:
                raise
            if not self._loses:
                self._print(f"warning: {self.path}: cannot be written: {error.strerror}; events are lost until it can")
            self._loses = True
        else:
            self._loses = False

    def say(self, text: str, **facts: Any) -> None:
        """Prints one line and records it."""
        self._print(text)
        self.event("say", text=text, **facts)

    @contextmanager
    def waiting(self, title: str, every_s: float = _STILL_EVERY_S) -> Iterator[None]:
        """Says that work goes on, and for how long by now, whenever nothing else was said for some seconds."""
        began, ended = time.monotonic(), threading.Event()

        def tell() -> None:
            while not ended.wait(every_s / 10):
                now = time.monotonic()
                if now - max(began, self._said) >= every_s:
                    self._print(f"{title} goes on, {now - began:.0f} s")

        teller = threading.Thread(target=tell, name="waiting", daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()

    @contextmanager
    def progress(self, title: str, total: float | None = None) -> Iterator[Advance]:
        """Shows a bar on a terminal; elsewhere a plain line every few seconds, and one at the end."""
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            facts_column = TextColumn("{task.fields[facts]}")
            with Progress(*columns, TimeRemainingColumn(), facts_column, console=self.console) as bar:
                task = bar.add_task(title, total=total, facts="")

                def advance_bar(amount: float = 1, total: float | None = None, /, **facts: object) -> None:
                    bar.update(task, advance=amount, total=total, facts=_facts(facts))

                yield advance_bar
            return
        done, of, last = 0.0, total, time.monotonic()

        def advance(amount: float = 1, total: float | None = None, /, **facts: object) -> None:
            nonlocal done, of, last
            done, of = done + amount, total if total is not None else of
            now = time.monotonic()
            if now - last >= _PLAIN_EVERY_S or done == of:
                last = now
                of_total = f"/{of:g}" if of else ""
                self._print(f"{title}: {done:g}{of_total} {_facts(facts)}".rstrip())

        yield advance

    def _print(self, text: str) -> None:
        self._said = time.monotonic()
        self.console.print(text, markup=False)


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a log, oldest first; a last line cut off by a crash is left out."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    return [orjson.loads(line) for line in lines[:-1] if line]


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _facts(facts: dict[str, object]) -> str:
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items())
