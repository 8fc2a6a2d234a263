"""How far a run is: a bar with what matters under it on a terminal, plain lines elsewhere."""

import math
from contextlib import ExitStack
from typing import Protocol

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from emberline.runlog import RunLog

Facts = dict[str, object]


class View(Protocol):
    def __call__(self, done: int, facts: Facts) -> None:
        """Shows that `done` steps are done; `facts` are values by their names."""

    def close(self) -> None: ...


def view_on(console: Console, total: int) -> View:
    """The view that suits a console.

    Args:
        total: steps in all.
    """
    return Terminal(console, total) if console.is_terminal else Lines(console, total)


class Terminal:
    """A bar, and the facts in a line of their own, which takes more lines where the terminal is narrow."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, expand=True)
        self._task = self._bar.add_task("training", total=total)
        self._live = Live(self._bar, console=console, refresh_per_second=8)
        self._live.start()

    def __call__(self, done: int, facts: Facts) -> None:
        self._bar.update(self._task, completed=done)
        words = [Text.assemble((f"{name} ", "dim"), told(value)) for name, value in facts.items()]
        self._live.update(Group(self._bar, Columns(words, padding=(0, 3))))

    def close(self) -> None:
        self._live.stop()


class Lines:
    """A line every few seconds."""

    def __init__(self, console: Console, total: int) -> None:
        log = RunLog(None)
        log.console = console
        self._stack, self._done = ExitStack(), 0
        self._advance = self._stack.enter_context(log.progress("training", total=total))

    def __call__(self, done: int, facts: Facts) -> None:
        self._advance(done - self._done, **{name: told(value) for name, value in facts.items()})
        self._done = done

    def close(self) -> None:
        self._stack.close()


def told(value: object) -> str:
    """A value for a person: four digits of a fraction, whole numbers whole."""
    if isinstance(value, float):
        return f"{value:.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - then fractions say nothing
    return str(value)
