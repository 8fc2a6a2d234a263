"""Which archives are served: verified, copied, and verified as copied.

So what was verified is what is served, whatever happens to the original meanwhile.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emberline import signing
from emberline.archivefile import read_archive
from emberline.artifact import Probe
from emberline.errors import EmberlineError
from emberline.recipe import Tuned
from emberline.runlog import warn

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Admitted:
    """An archive that may be served.

    Attributes:
        source: what the user named.
        file: our own copy in the private store; the only one that is ever unpacked.
        probe: None in an archive that other tools made.
        tuned: how it is served best, where that was measured.
    """

    model: str
    version: str
    source: Path
    file: Path
    probe: Probe | None
    handler: str
    tuned: Tuned | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.version


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
    for source in sources:
        one = admit_one(source, private, public_key=public_key, allow_unsigned=allow_unsigned)
        if (other := admitted.get(one.key)) is not None:
            raise EmberlineError(
                f"holds {one.model} {one.version}, as {other.source} does",
                place=source,
                hint="name one of the two, or archive one as another version",
            )
        admitted[one.key] = one
    return tuple(admitted.values())


def admit_one(source: Path, private: Path, *, public_key: Path, allow_unsigned: bool, prefix: str = "") -> Admitted:
    """Lets one archive into the private store.

    Args:
        prefix: of the copy's name, where the version is served already.

    Raises:
        EmberlineError: its signature is missing or wrong, or it is hostile or broken.
    """
    _check(source, public_key, allow_unsigned=allow_unsigned)
    # a folder of its own, so that the copy and its signature keep their names
    with tempfile.TemporaryDirectory(prefix="verified-", dir=private.parent) as folder:
        copy = Path(shutil.copyfile(source, Path(folder, source.name)))
        if signing.signature_of(source).is_file():
            shutil.copyfile(signing.signature_of(source), signing.signature_of(copy))
        _check_copy(copy, source, public_key, allow_unsigned=allow_unsigned)
        return _enter(copy, source, private, prefix)


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


def _enter(copy: Path, source: Path, private: Path, prefix: str) -> Admitted:
    info = read_archive(copy)
    for what, value in (("model", info.model), ("version", info.version)):
        if _NAME.fullmatch(value) is None:
            raise EmberlineError(
                f"its {what} is {value!r}; letters, digits, dots, dashes and underscores are required", place=source
            )
    file = copy.rename(private / f"{prefix}{info.model}-{info.version}.mar")
    tuned = info.artifact.serving if info.artifact is not None else None
    return Admitted(info.model, info.version, source, file, info.probe, info.handler, tuned)
