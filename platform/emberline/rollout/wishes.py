"""What people ask for without an experiment: a version that is to answer, left as a file of its model.

Whoever leaves a wish, takes it back or carries it out holds one lock meanwhile, so that of two at once one comes first.
The line in the audit log comes before the file goes: a wish whose line says that it is over is over, whatever a kill
has left of its file.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import orjson
from pydantic import Field

from emberline import storage
from emberline.compare.jsonlines import append_line
from emberline.errors import CorruptPaper, InvalidOption, MissingFile
from emberline.experiment import Experiment
from emberline.paper import Frozen
from emberline.recipe import Name, Version
from emberline.rollout.audit import audit_path, read_audit

_REQUEST = ".deploy.json"
_LOCK = ".deploy.lock"

Over = Literal["withdrawn", "refused"]


class Wish(Frozen):
    """What a person asked for.

    Attributes:
        asked: Unix time; tells a wish from the same one asked again.
    """

    model: Name
    version: Version
    reason: str
    asked: float = Field(default_factory=time.time)


def leave_wish(folder: Path, wish: Wish, option: str) -> Path:
    """Leaves a wish for the controller.

    Args:
        option: of the command line, for the error.

    Raises:
        MissingFile: there is no such folder, so no controller that would look there.
        InvalidOption: another one waits for the model.
    """
    path = _path(folder, wish.model)
    _require(folder)
    with sole_hand(folder):
        other = next((one for one in read_wishes(folder) if one.model == wish.model), None)
        if other is not None:
            got = f"{wish.model}@{wish.version}"
            required = f"a model for which nothing waits, and {other.version} does ({other.reason})"
            hint = f"--withdraw {wish.model} --reason … takes that back; then ask again"
            raise InvalidOption("rollout", option, got, required, hint=hint)
        storage.write_bytes(path, orjson.dumps(wish.model_dump()))
    return path


def read_wishes(folder: Path) -> list[Wish]:
    """All that wait.

    Raises:
        CorruptPaper: somebody wrote one by hand and wrongly.
    """
    found = []
    for path in sorted(folder.glob(f"*{_REQUEST}")):
        try:
            wish = Wish.model_validate({"asked": path.stat().st_mtime, **orjson.loads(path.read_bytes())})
        except FileNotFoundError:  # carried out or withdrawn since it was listed: it waits no more
            continue
        except (ValueError, TypeError) as error:
            raise CorruptPaper(path, "no request", "model, version and reason", hint="remove the file") from error
        if not is_over(folder, wish.model, wish.asked):
            found.append(wish)
    return found


def withdraw(folder: Path, model: str, reason: str) -> Wish:
    """Takes a waiting wish back, and notes it.

    Raises:
        MissingFile: there is no such folder.
        InvalidOption: none waits for the model: it may have been carried out.
        CorruptPaper: what waits cannot be read.
    """
    _require(folder)
    with sole_hand(folder):
        waiting = {wish.model: wish for wish in read_wishes(folder)}
        if model not in waiting:
            hint = f"waiting: {', '.join(sorted(waiting)) or 'none'}; what is in force is undone by --rollback"
            required = "a model with a deployment that waits"
            raise InvalidOption("rollout", "--withdraw", model, required, hint=hint)
        drop(folder, waiting[model], "withdrawn", reason)
        return waiting[model]


def drop(folder: Path, wish: Wish, event: Over, why: str) -> None:
    """Notes that a wish is over, then removes it; for who holds the lock."""
    note_over(folder, wish, event, why)
    remove(folder, wish)


def note_over(folder: Path, wish: Wish, event: Over, why: str) -> None:
    line = {"time": time.time(), "event": event, **wish.model_dump(), "why": why}
    append_line(audit_path(folder, f"{wish.model}.deployed"), line)


def remove(folder: Path, wish: Wish) -> None:
    _path(folder, wish.model).unlink(missing_ok=True)


def is_over(folder: Path, model: str, asked: float) -> bool:
    """Whether what was asked for then has been withdrawn or refused."""
    lines = read_audit(folder, f"{model}.deployed")
    return any(line["event"] in get_args(Over) and line.get("asked") == asked for line in lines)


def waiting_lines(folder: Path, experiments: Sequence[Experiment]) -> list[str]:
    """Each wish that waits, and for what."""
    lines = []
    for wish in read_wishes(folder):
        other = going_on(wish, experiments)
        cause = "a running rollout's next look" if other is None else f"experiment {other}, which has the traffic"
        lines.append(f"deployment {wish.model} {wish.version}: waits for {cause}  ({wish.reason})")
    return lines


def going_on(wish: Wish, experiments: Sequence[Experiment]) -> str | None:
    """Name of the experiment that has the model's traffic."""
    return next((one.name for one in experiments if one.spec.model == wish.model and not one.terminal), None)


@contextmanager
def sole_hand(folder: Path) -> Iterator[None]:
    """Waits for whoever handles a wish of the folder, then keeps others out; a kill lets go of it."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingFile(folder, "the folder of experiments", hint="name it by --experiments")


def _path(folder: Path, model: str) -> Path:
    return folder / f"{model}{_REQUEST}"
