"""A fence around a run's folder: of two worlds that both think they train it, the older one cannot commit.

Each world takes the next generation number by making its *gate*, the folder `generations/000008`, which only one can;
then it moves the gates of all older generations away. Whatever a generation commits is renamed into its gate and out of
it to its place. Without the gate there is nothing to rename: the file system itself refuses, at whatever moment the
older world was stopped and let go on. No lock is held that a stopped process could keep from the others.
"""

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from emberline import storage
from emberline.errors import EmberlineError

_GATES = "generations"
_OUT = ".out-"
_NUMBER = "generation"  # the file that held it in runs of earlier versions


class Fenced(EmberlineError):
    """A newer world trains this run; this one must end and may write nothing more."""

    def __init__(self, place: Path | str, own: int, newest: int) -> None:
        super().__init__(
            f"generation {own} was overtaken by generation {newest}, which trains this run now",
            place=place,
            hint="two launchers were started for one run, or a cut-off node came back; this one has ended",
        )


def claim_generation(folder: Path, *, above: int = 0) -> int:
    """Takes the next generation number; from now on older ones are fenced out.

    Args:
        above: the number is larger than this one too.
    """
    gates = folder / _GATES
    gates.mkdir(parents=True, exist_ok=True)
    while True:
        number = max(newest_generation(folder), above) + 1
        try:
            _gate(folder, number).mkdir()
        except FileExistsError:  # another world was faster: compare and set, by the file system
            continue
        for older in sorted(gates.glob("[0-9]*")):
            if int(older.name) < number:
                _take_away(older)
        storage.sync_folder(gates)
        return number


def newest_generation(folder: Path) -> int:
    number = folder / _NUMBER
    numbers = [int(path.name) for path in (folder / _GATES).glob("[0-9]*")]
    return max(numbers, default=int(number.read_text()) if number.is_file() else 0)


def check(folder: Path, generation: int) -> None:
    """Raises Fenced where a newer world has started; that it has not may be untrue as soon as this returns."""
    if (newest := newest_generation(folder)) != generation:
        raise Fenced(folder, generation, newest)


def commit(folder: Path, generation: int, source: Path, target: Path) -> None:
    """Puts a file or folder that was written elsewhere in the run's folder into its place, replacing what is there.

    Raises:
        Fenced: a newer world has started; the target is untouched.
    """
    check(folder, generation)
    storage.sync_folder(source.parent)
    gate, mark = _gate(folder, generation), uuid.uuid4().hex[:8]
    inside, old = gate / f"{mark}-{source.name}", gate / f"{mark}-old"
    try:
        source.rename(inside)
        if target.is_dir():
            target.rename(old)
        inside.rename(target)
    except FileNotFoundError as error:
        if gate.is_dir():
            raise
        raise Fenced(folder, generation, newest_generation(folder)) from error
    storage.sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _gate(folder: Path, generation: int) -> Path:
    return folder / _GATES / f"{generation:06d}"


def _take_away(gate: Path) -> None:
    out = gate.with_name(f"{_OUT}{gate.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):  # another claim did it
        gate.rename(out)
    shutil.rmtree(out, ignore_errors=True)
