"""The papers between stages: folders whose manifest names every file, its hash, and where it all came from.

A paper is written under `<name>.partial`, flushed to disk and renamed, with the manifest written last; so a folder
with a manifest is whole. Reading verifies it, the manifest included, before anything is used. Each manifest carries
its whole lineage, so that any paper, alone, tells which training run it goes back to.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError

from emberline import __version__, storage
from emberline.errors import CorruptPaper, EmberlineError, ForeignFile, MissingFile, NewerSchema, UnsealedPaper

SCHEMA = 1
MANIFEST = "manifest.json"
_AGAIN = "restore the file or make it again"
_SEAL = re.compile(rb',\n  "seal": "([0-9a-f]{32})"\n}\n\Z')
Kind = Literal["run", "checkpoint", "artifact", "archive", "exposures", "report"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(Frozen):
    xxh3: str
    size_bytes: int


class Ancestor(Frozen):
    """One step of lineage: what a paper was made from."""

    kind: Kind
    name: str
    digest: str


class Manifest(Frozen):
    """What a paper says of itself.

    Attributes:
        recipe: digest of the recipe that made it; empty where none did.
        lineage: all ancestors, the direct parent first.
        facts: what this kind of paper adds (step, metrics, …); small, JSON only.
    """

    schema_version: int = SCHEMA
    kind: Kind
    name: str
    created: str
    code: str = f"emberline {__version__}"
    recipe: str = ""
    seed: int | None = None
    lineage: tuple[Ancestor, ...] = ()
    facts: dict[str, Any] = {}
    files: dict[str, FileEntry] = {}

    @property
    def digest(self) -> str:
        """SHA-256 over all the paper holds but the time it was written, so equal work has equal digests."""
        return digest_of(self.model_dump(mode="json", exclude={"created"}))

    def as_ancestor(self) -> Ancestor:
        return Ancestor(kind=self.kind, name=self.name, digest=self.digest)


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value in canonical form, as hex."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass
class PaperDraft:
    """A paper being written: put files into `folder`, facts into `facts`."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None


@contextmanager
def write_paper(
    target: Path, kind: Kind, *, recipe: str = "", seed: int | None = None, parent: Manifest | None = None
) -> Iterator[PaperDraft]:
    """Writes a paper that is there whole or not at all.

    On success the folder replaces `target` and `draft.manifest` is set; on any exception nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = PaperDraft(target.with_name(f"{target.name}.{os.getpid()}.partial"))
    shutil.rmtree(draft.folder, ignore_errors=True)
    draft.folder.mkdir()
    try:
        yield draft
        draft.manifest = Manifest(
            kind=kind,
            name=target.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=recipe,
            seed=seed,
            lineage=(parent.as_ancestor(), *parent.lineage) if parent else (),
            facts=draft.facts,
            files={name: _entry(draft.folder / name) for name in _files_under(draft.folder)},
        )
        storage.write_bytes(draft.folder / MANIFEST, manifest_bytes(draft.manifest))
        _replace_folder(draft.folder, target)
    finally:
        shutil.rmtree(draft.folder, ignore_errors=True)


def manifest_bytes(manifest: Manifest) -> bytes:
    """As a file: the last line is a seal, the xxh3 of all bytes before it, so that no flipped bit passes for a fact."""
    body = manifest.model_dump_json(indent=2).encode().removesuffix(b"\n}")
    return b'%s,\n  "seal": "%s"\n}\n' % (body, xxhash.xxh3_128_hexdigest(body).encode())


def read_manifest(folder: Path, kind: Kind | None = None) -> Manifest:
    """Reads a paper's manifest alone, files unchecked: for listings. To use a paper, call `verify_paper`."""
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingFile(path, "the paper's manifest", hint="a folder without one was never finished; make it again")
    return parse_manifest(path.read_bytes(), path, kind)


def parse_manifest(content: bytes, place: Path, kind: Kind | None = None) -> Manifest:
    try:
        raw: dict[str, Any] = json.loads(content)
        schema = int(raw["schema_version"])
        if schema > SCHEMA:
            raise NewerSchema(place, schema, SCHEMA)
        raw.pop("seal", None)
        manifest = Manifest.model_validate(raw)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise CorruptPaper(place, "no manifest", "one that this version can read", hint=_AGAIN) from error
    if (seal := _SEAL.search(content)) is None:
        another = f", or start another run (--set run={manifest.name}-2)" if manifest.kind == "run" else ""
        raise UnsealedPaper(place.parent, hint=f"remove the folder{another or ' and make it again'}")
    if seal[1].decode() != (got := xxhash.xxh3_128_hexdigest(content[: seal.start()])):
        raise CorruptPaper(place, f"xxh3 {got}", f"xxh3 {seal[1].decode()}", hint=_AGAIN)
    if kind is not None and manifest.kind != kind:
        raise EmberlineError(f"this is a paper of kind {manifest.kind!r}; {kind!r} is required", place=place.parent)
    return manifest


def verify_paper(folder: Path, kind: Kind | None = None) -> Manifest:
    """Reads a manifest and checks each file's hash, and that no file is missing or foreign.

    The folder of a run goes on living once the run has ended (log, checkpoints, artifacts, caches of compression), so
    there only what the manifest names is checked; papers below have manifests of their own.

    Raises:
        MissingFile: there is no manifest, or a file it names is gone.
        CorruptPaper: a file differs from its hash.
        ForeignFile: one is there that the manifest does not name.
        NewerSchema: written by a later version.
    """
    manifest = read_manifest(folder, kind)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise MissingFile(path, f"a file named by {MANIFEST}")
        if (got := _entry(path)) != entry:
            raise CorruptPaper(path, f"xxh3 {got.xxh3}", f"xxh3 {entry.xxh3}", hint=_AGAIN)
    foreign = set() if manifest.kind == "run" else set(_files_under(folder)) - set(manifest.files)
    if foreign:
        raise ForeignFile(folder / min(foreign), MANIFEST)
    return manifest


def _files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


def _entry(path: Path) -> FileEntry:
    return FileEntry(xxh3=storage.content_hash(path), size_bytes=path.stat().st_size)


def _replace_folder(new: Path, target: Path) -> None:
    """Puts `new` in the place of `target`; between the two renames a reader finds no paper, never half of one."""
    for path in new.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    storage.sync_folder(new)
    old = target.with_name(f"{target.name}.{os.getpid()}.replaced")
    if target.exists():
        target.rename(old)
    new.rename(target)
    storage.sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
