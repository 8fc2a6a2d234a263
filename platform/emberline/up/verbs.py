"""How one verb of the command line is called as a process."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from emberline.errors import StageFailed
from emberline.process import Child, start

ORPHAN_GRACE_S = 1.5  # verbs start verbs that start java: the graces of all three add up to less than 10 s


def command(verb: str, *arguments: object) -> list[str]:
    """The verb with this very interpreter, so that an environment need not be activated."""
    return [sys.executable, "-m", "emberline.cli", verb, *(str(argument) for argument in arguments)]


def run_verb(verb: str, *arguments: object) -> None:
    """Runs a verb to its end, its output on this terminal.

    Raises:
        StageFailed: it exited with something but 0; its own error stands above.
    """
    child = start(command(verb, *arguments), name=verb, grace_s=ORPHAN_GRACE_S)
    try:
        code = child.wait()
    except BaseException:
        child.stop()
        raise
    if code:
        raise StageFailed(
            verb, f"exit code {code}", hint=f"its error stands above; again: emberline {_line(verb, arguments)}"
        )


def start_verb(verb: str, *arguments: object, log: Path) -> Child:
    log.parent.mkdir(parents=True, exist_ok=True)
    return start(command(verb, *arguments), name=verb, log=log, grace_s=ORPHAN_GRACE_S)


def tail(log: Path, lines: int = 12) -> str:
    """The end of a verb's log, for the error that says it died."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.is_file() else "(no log)"


def _line(verb: str, arguments: Sequence[object]) -> str:
    return shlex.join([verb, *(str(argument) for argument in arguments)])
