"""One archive with its signature in the store: made anew, or found to be what would be made."""

import filecmp
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emberline import assets, signing, storage
from emberline.archive import cascade, contents, handler, packing
from emberline.archivefile import read_archive
from emberline.artifact import Artifact, read_artifact
from emberline.errors import EmberlineError, InvalidSetting, MissingFile
from emberline.paper import Manifest
from emberline.recipe import Archive, Recipe
from emberline.signing import Keys


@dataclass(frozen=True)
class Stored:
    """An archive in the store.

    Attributes:
        outcome: `written`, `replaced` where another content had this version, or `reused`.
        warnings: what was measured of the artifact that speaks against serving it.
    """

    path: Path
    artifact: str
    version: str
    size_bytes: int
    outcome: Literal["written", "replaced", "reused"]
    warnings: tuple[str, ...] = ()


def archive_all(
    recipe: Recipe, path: Path, *, runs: Path, store: Path, keys: Keys, say: Callable[[str], None]
) -> list[Stored]:
    """Archives each version that the recipe names; all of them are made before the first one is put into the store.

    Args:
        path: the recipe's file.

    Raises:
        InvalidSetting: the recipe archives nothing, or two artifacts have one version.
        EmberlineError: an artifact or the handler cannot be served; the store is as it was.
    """
    settings = recipe.archive
    if settings is None or not settings.versions:
        raise InvalidSetting(path, "archive.versions", None, "a version for at least one artifact")
    versions = [*settings.versions.values(), *(one.version for one in settings.cascades.values())]
    if doubled := {version for version in versions if versions.count(version) > 1}:
        raise InvalidSetting(path, "archive.versions", min(doubled), "a version of its own for each artifact")
    stored = []
    artifacts = runs / recipe.run / "artifacts"
    with ExitStack() as stack:
        made = [
            stack.enter_context(_cascade(artifacts, name, settings, path, store))
            if name in settings.cascades
            else stack.enter_context(_archive(artifacts / name, settings, path, store))
            for name in (*settings.versions, *settings.cascades)
        ]
        for packed in made:
            one = _put(packed, keys)
            say(f"{one.path}: {one.outcome}, {one.size_bytes / 1e6:.2f} MB, signed with key {keys.fingerprint[:16]}")
            for warning in one.warnings:
                say(f"warning: {one.path}: {warning}")
            stored.append(one)
    return stored


def write_archive(artifact: Path, settings: Archive, recipe: Path, *, store: Path, keys: Keys) -> Stored:
    """Archives and signs one artifact; the store has the old pair or the new one, and never an unsigned archive.

    Raises:
        MissingFile, CorruptPaper: the artifact cannot be trusted.
        EmberlineError: it or the handler cannot be served.
    """
    with _archive(artifact, settings, recipe, store) as packed:
        return _put(packed, keys)


def write_cascade(artifacts: Path, name: str, settings: Archive, recipe: Path, *, store: Path, keys: Keys) -> Stored:
    """Archives and signs the artifacts of one cascade as one version.

    Raises:
        MissingFile, CorruptPaper: an artifact is not there or cannot be trusted.
        EmberlineError: they do not fit together, or cannot be served.
    """
    with _cascade(artifacts, name, settings, recipe, store) as packed:
        return _put(packed, keys)


@dataclass(frozen=True)
class Facts:
    """What was put into an archive: the papers that it bears, and the name of what it was made from."""

    manifest: Manifest
    description: Artifact
    name: str


@dataclass(frozen=True)
class Packed:
    """An archive that was made and can be read, not in the store yet."""

    made: Path
    target: Path
    version: str
    facts: Facts


def _archive(artifact: Path, settings: Archive, recipe: Path, store: Path) -> AbstractContextManager[Packed]:
    if not artifact.is_dir():
        raise MissingFile(artifact, "the artifact", hint="emberline compress makes artifacts")
    manifest, description = read_artifact(artifact)
    chosen = handler.choose(settings.handler, description, recipe)

    def fill(files: Path) -> Facts:
        contents.stage(files, artifact, manifest, description, settings)
        return Facts(manifest, description, manifest.name)

    return _pack(fill, settings.versions[manifest.name], chosen, settings, store)


def _cascade(
    artifacts: Path, name: str, settings: Archive, recipe: Path, store: Path
) -> AbstractContextManager[Packed]:
    one = settings.cascades[name]
    chosen = assets.folder("handlers") / "cascade_handler.py"

    def fill(files: Path) -> Facts:
        manifest, description = cascade.stage(files, artifacts, name, one, settings)
        return Facts(manifest, description, name)

    if settings.handler not in ("auto", "tensor", "ranking"):
        raise InvalidSetting(
            recipe,
            "archive.handler",
            settings.handler,
            "`auto`, `tensor` or `ranking`: cascades have one of their own,",
        )
    return _pack(fill, one.version, chosen, settings, store)


@contextmanager
def _pack(
    fill: Callable[[Path], Facts], version: str, chosen: Path, settings: Archive, store: Path
) -> Iterator[Packed]:
    """Fills and packs an archive beside its place in the store; it goes away at the end, unless it was put there."""
    target = store / f"{settings.model}-{version}.mar"
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=store) as name:
        files, made = Path(name, "files"), Path(name, target.name)
        files.mkdir()
        facts = fill(files)
        if handler.is_own(chosen):
            contents.expect(files, handler.check(chosen, files))
        packing.pack(made, files, chosen, model=settings.model, version=version, created=facts.manifest.created)
        read_archive(made)  # what is refused when read must never be written
        shutil.rmtree(files)
        yield Packed(made, target, version, facts)


def _put(packed: Packed, keys: Keys) -> Stored:
    """Signs an archive and puts it into the store, or finds that it is there already."""
    made, target, facts = packed.made, packed.target, packed.facts
    size_bytes = made.stat().st_size
    measured = facts.description.measurement
    warnings = () if measured is None else measured.warnings
    if _is_there(target, made, keys):
        return Stored(target, facts.name, packed.version, size_bytes, "reused", warnings)
    outcome: Literal["written", "replaced"] = "replaced" if target.exists() else "written"
    _publish(made, signing.sign(made, keys), target)
    return Stored(target, facts.name, packed.version, size_bytes, outcome, warnings)


def _is_there(target: Path, made: Path, keys: Keys) -> bool:
    """Whether the store has these bytes, signed with this key."""
    if not target.is_file() or not filecmp.cmp(target, made, shallow=False):
        return False
    try:
        signing.verify(target, keys.public)
    except EmberlineError:  # unsigned, altered or another key: reason enough to sign anew
        return False
    return True


def _publish(made: Path, signature: Path, target: Path) -> None:
    """The signature goes away first and comes last: in between the archive is unsigned, and so refused."""
    signing.signature_of(target).unlink(missing_ok=True)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(target)
    storage.write_bytes(signing.signature_of(target), signature.read_bytes())
