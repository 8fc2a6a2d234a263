"""Which archives are served: verified, copied, and verified as copied.

So what was verified is what is served, whatever happens to the original meanwhile.
"""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emberline import signing
from emberline.archivefile import read_archive
from emberline.artifact import Probe
from emberline.errors import EmberlineError, MissingFile
from emberline.runlog import warn

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Admitted:
    """An archive that may be served.

    Attributes:
        source: what the user named.
        file: our own copy in the private store; the only one that is ever unpacked.
        probe: None in an archive that other tools made.
    """

    model: str
    version: str
    source: Path
    file: Path
    probe: Probe | None

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.version


def find_archives(named: Sequence[Path], store: Path) -> tuple[Path, ...]:
    """The archives named, or all of the store.

    Raises:
        MissingFile: one that was named is not there, or the store has none.
    """
    for path in named:
        if not path.is_file():
            raise MissingFile(path, "the archive", hint="emberline archive makes archives")
    found = tuple(named) or tuple(sorted(store.glob("*.mar")))
    if not found:
        raise MissingFile(store, "an archive (*.mar)", hint="make some: emberline archive, or make serve")
    return found


def admit(sources: Iterable[Path], private: Path, *, public_key: Path, allow_unsigned: bool) -> tuple[Admitted, ...]:
    """Lets archives into the private store, which nobody else writes to.

    Args:
        private: TorchServe's model store; must belong to this user alone.
        public_key: of the signer whose archives are trusted.
        allow_unsigned: archives whose signature is missing or wrong are served too, each with a warning.

    Raises:
        EmberlineError: a signature is missing or wrong, an archive is hostile or broken, or a version is there twice.
    """
    admitted: dict[tuple[str, str], Admitted] = {}
    for number, source in enumerate(sources):
        _check(source, public_key, allow_unsigned=allow_unsigned)
        # a folder a source, so that the copy and its signature keep their names
        folder = private.parent / "verified" / str(number)
        folder.mkdir(parents=True, mode=0o700)
        copy = Path(shutil.copyfile(source, folder / source.name))
        if signing.signature_of(source).is_file():
            shutil.copyfile(signing.signature_of(source), signing.signature_of(copy))
        _check_copy(copy, source, public_key, allow_unsigned=allow_unsigned)
        one = _enter(copy, source, private)
        if (other := admitted.get(one.key)) is not None:
            raise EmberlineError(
                f"holds {one.model} {one.version}, as {other.source} does",
                place=source,
                hint="name one of the two, or archive one as another version",
            )
        admitted[one.key] = one
    return tuple(admitted.values())


def _check(source: Path, public_key: Path, *, allow_unsigned: bool) -> None:
    try:
        signing.verify(source, public_key)
    except EmberlineError as error:
        if not allow_unsigned:
            raise
        warn(f"{error} -- served all the same, as --allow-unsigned asks; an archive is code that will run")


def _check_copy(copy: Path, source: Path, public_key: Path, *, allow_unsigned: bool) -> None:
    """What was verified a moment ago may have changed before it was copied: the copy is what counts."""
    if allow_unsigned:
        return
    try:
        signing.verify(copy, public_key)
    except EmberlineError as error:
        raise EmberlineError(f"changed while it was verified: {error.fact}", place=source) from error


def _enter(copy: Path, source: Path, private: Path) -> Admitted:
    info = read_archive(copy)
    for what, value in (("model", info.model), ("version", info.version)):
        if _NAME.fullmatch(value) is None:
            raise EmberlineError(
                f"its {what} is {value!r}; letters, digits, dots, dashes and underscores are required", place=source
            )
    file = copy.rename(private / f"{info.model}-{info.version}.mar")
    return Admitted(info.model, info.version, source, file, info.probe)
