"""A fence around a run's folder: of two worlds that both think they train it, the older one cannot commit.

Each world takes the next generation number by making the folder `generations/000008`, which only one can and which
stays, so that no number is ever taken twice. In it stands the generation's *gate*; whoever takes a number moves the
gates of all older ones away. Whatever a generation commits is renamed into its gate and out of it to its place.
Without the gate there is nothing to rename: the file system itself refuses, at whatever moment the older world was
stopped and let go on. No lock is held that a stopped process could keep from the others.
"""

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from emberline import storage
from emberline.errors import EmberlineError

_GENERATIONS = "generations"
_GATE = "gate"
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
    generations = folder / _GENERATIONS
    generations.mkdir(parents=True, exist_ok=True)
    while True:
        number = max(newest_generation(folder), above) + 1
        gate = _gate(folder, number)
        try:
            gate.parent.mkdir()
        except FileExistsError:  # another world was faster: compare and set, by the file system
            continue
        gate.mkdir()
        for older in generations.glob(f"[0-9]*/{_GATE}"):
            if older < gate:
                _take_away(older)
        storage.sync_folder(generations)
        return number


def newest_generation(folder: Path) -> int:
    number = folder / _NUMBER
    numbers = [int(path.name) for path in (folder / _GENERATIONS).glob("[0-9]*")]
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
    return folder / _GENERATIONS / f"{generation:06d}" / _GATE


def _take_away(gate: Path) -> None:
    out = gate.with_name(f"{_OUT}{os.getpid()}-{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):  # another claim did it
        gate.rename(out)
    shutil.rmtree(out, ignore_errors=True)
