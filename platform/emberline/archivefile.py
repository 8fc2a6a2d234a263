"""A `.mar` file, read without unpacking it, in the belief that its maker means harm.

An archive is a zip that TorchServe's Java unpacks entry by entry, while Python reads the directory at its end. What is
refused here is whatever could write outside its folder, fill the disk, or look different to the two.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson
from pydantic import ValidationError

from emberline.artifact import DESCRIPTION, PROBE, Artifact, Probe
from emberline.errors import EmberlineError, MissingFile
from emberline.paper import Frozen, Manifest

M = TypeVar("M", bound=Frozen)

SERVER_MANIFEST = "MAR-INF/MANIFEST.json"
LINEAGE = "lineage.json"
CARD = "model-card.json"

MAX_ENTRIES = 10_000
MAX_DOCUMENT_BYTES = 16 << 20
MAX_TOTAL_BYTES = 64 << 30
MAX_RATIO = 200
_RATIO_FROM_BYTES = 1 << 20  # small files of one byte repeated compress beyond any ratio and harm nobody
_CHUNK_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")  # these become parts of URLs and file names
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_END_SIGNATURE, _END_BYTES = b"PK\x05\x06", 22  # of the record behind the directory, and its length less a comment's
_ZIP64 = 0xFFFFFFFF  # stands for a size that is in the extra field
_ENCRYPTED, _DESCRIPTOR_FOLLOWS = 0x1, 0x8
# a data descriptor: with or without its signature, sizes of 4 or 8 bytes
_DESCRIPTOR_BYTES = (12, 16, 20, 24)


class HostileArchive(EmberlineError):
    """An archive that must not be unpacked; says which entry and why."""

    def __init__(self, archive: Path, fact: str) -> None:
        super().__init__(fact, place=archive, hint="do not use it; make archives by `emberline archive`")


class BrokenArchive(EmberlineError):
    """No archive, or one whose documents cannot be read."""

    def __init__(self, archive: Path, fact: str) -> None:
        super().__init__(fact, place=archive, hint="copy it again from where it was made")


@dataclass(frozen=True)
class ArchiveInfo:
    """What an archive says of itself. An archive made by other tools than emberline has no artifact, lineage or card.

    Attributes:
        model: name TorchServe registers it by.
        handler: file of its handler, or the name of one of TorchServe's own.
        lineage: the artifact's manifest.
        card: the model card.
        size_bytes: of all its files unpacked.
    """

    path: Path
    model: str
    version: str
    handler: str
    artifact: Artifact | None
    lineage: Manifest | None
    probe: Probe | None
    card: dict[str, Any]
    files: tuple[str, ...]
    size_bytes: int


def read_archive(path: Path) -> ArchiveInfo:
    """Checks an archive's structure and reads its documents.

    Raises:
        MissingFile: there is no such file.
        HostileArchive: an entry must not be unpacked.
        BrokenArchive: no zip, or a document in it cannot be read.
    """
    if not path.is_file():
        raise MissingFile(path, "the archive", hint="emberline archive makes archives")
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            entries = archive.infolist()
            check_entries(path, entries)
            _check_layout(path, raw, entries, archive.start_dir)
            _check_end(path, raw, archive.comment)
            return _describe(path, archive)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, UnicodeDecodeError, struct.error, EOFError) as error:
        raise BrokenArchive(path, f"is no whole zip file: {error}") from error


def check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuses entries by what the zip's directory declares of them."""
    if len(entries) > MAX_ENTRIES:
        raise HostileArchive(path, f"{len(entries)} entries; at most {MAX_ENTRIES} are allowed")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_TOTAL_BYTES:
        raise HostileArchive(path, f"unpacks to {total} bytes; at most {MAX_TOTAL_BYTES} are allowed")
    seen: set[str] = set()
    for entry in entries:
        if fault := _fault(entry):
            raise HostileArchive(path, f"entry {entry.filename!r} {fault}")
        if entry.filename.rstrip("/") in seen:
            raise HostileArchive(
                path, f"entry {entry.filename!r} is there twice; which one counts depends on the reader"
            )
        seen.add(entry.filename.rstrip("/"))


def _fault(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry must not be unpacked, or None."""
    name, mode, method = entry.filename, entry.external_attr >> 16, entry.compress_type
    stored = method == zipfile.ZIP_STORED
    faults = (
        # Python cuts names at a NUL byte, Java does not: what it was before the cut counts
        (
            entry.orig_filename != name or any(ord(letter) < ord(" ") for letter in name),
            "has control characters in its name",
        ),
        (not name or name.startswith("/") or "\\" in name or ":" in name, "has an absolute or foreign path"),
        (
            any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")),
            "leads out of the archive's folder",
        ),
        (stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR), "is a link or a special file"),
        (bool(entry.flag_bits & _ENCRYPTED), "is encrypted"),
        (
            method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
            f"is packed by method {method}; stored or deflated is required",
        ),
        (stored and entry.file_size != entry.compress_size, "is stored, and yet of another size than declared"),
        (
            entry.file_size > _RATIO_FROM_BYTES and entry.file_size > MAX_RATIO * entry.compress_size,
            f"unpacks to more than {MAX_RATIO} times its size",
        ),
    )
    return next((text for wrong, text in faults if wrong), None)


def _check_layout(path: Path, raw: IO[bytes], entries: list[zipfile.ZipInfo], directory: int) -> None:
    """Entries must fill the file from its start to its directory, so that no reader finds any that others do not."""
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        gap = entry.header_offset - position
        if gap != 0:
            raise HostileArchive(path, f"entry {entry.filename!r} does not follow the one before it")
        data = _check_local_header(path, raw, entry)
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            _check_inflated(path, raw, entry, data)
        position = data + entry.compress_size
        if entry.flag_bits & _DESCRIPTOR_FOLLOWS:
            position += _descriptor_bytes(raw, entry, position)
    if position != directory:
        raise HostileArchive(path, f"{directory - position} bytes between its last entry and its directory")


def _check_end(path: Path, raw: IO[bytes], comment: bytes) -> None:
    """The directory must end the file: what stands behind it no reader of zips would tell of."""
    size = raw.seek(0, os.SEEK_END)
    at = max(0, size - _END_BYTES - len(comment))
    raw.seek(at)
    if raw.read(len(_END_SIGNATURE)) != _END_SIGNATURE:
        raise HostileArchive(path, "bytes follow its directory")


def _check_local_header(path: Path, raw: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Compares an entry's own header with the directory; returns where its data begin."""
    raw.seek(entry.header_offset)
    signature, _, flags, method, *_, packed, unpacked, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(
        raw.read(_LOCAL_HEADER.size)
    )
    name = raw.read(name_bytes)
    sizes_known = not flags & _DESCRIPTOR_FOLLOWS and _ZIP64 not in (packed, unpacked)
    if (
        signature != _LOCAL_SIGNATURE
        or name.decode("utf-8" if flags & 0x800 else "cp437") != entry.filename
        or method != entry.compress_type
        or flags != entry.flag_bits
        or (sizes_known and (packed, unpacked) != (entry.compress_size, entry.file_size))
    ):
        raise HostileArchive(path, f"entry {entry.filename!r} is another thing in the directory than where it stands")
    data: int = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    return data


def _descriptor_bytes(raw: IO[bytes], entry: zipfile.ZipInfo, position: int) -> int:
    """Length of the data descriptor at `position`; 0 where there is none, which the layout then refuses."""
    raw.seek(position)
    content = raw.read(max(_DESCRIPTOR_BYTES))
    for signature in (b"PK\x07\x08", b""):
        for sizes in ("<III", "<IQQ"):
            wanted = signature + struct.pack(sizes, entry.CRC, entry.compress_size, entry.file_size)
            if content.startswith(wanted):
                return len(wanted)
    return 0


def _check_inflated(path: Path, raw: IO[bytes], entry: zipfile.ZipInfo, data: int) -> None:
    """Inflates an entry, a piece at a time, to see that it ends where the directory says: Java would go on."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    raw.seek(data)
    left, size = entry.compress_size, 0
    while left and not inflater.eof:
        piece = raw.read(min(left, _CHUNK_BYTES))
        if not piece:
            break
        left -= len(piece)
        while size <= entry.file_size:
            made = len(inflater.decompress(piece, _CHUNK_BYTES))
            size, piece = size + made, inflater.unconsumed_tail
            if not piece and made < _CHUNK_BYTES:  # a full chunk may have more behind it without further input
                break
        if size > entry.file_size:
            break
    if size != entry.file_size or left or not inflater.eof or inflater.unused_data:
        raise HostileArchive(path, f"entry {entry.filename!r} does not unpack to the size it declares")


def _describe(path: Path, archive: zipfile.ZipFile) -> ArchiveInfo:
    served = _document(path, archive, SERVER_MANIFEST)
    if served is None:
        raise BrokenArchive(path, f"has no {SERVER_MANIFEST}; it is no TorchServe archive")
    try:
        model, version, handler = (served["model"][key] for key in ("modelName", "modelVersion", "handler"))
    except (KeyError, TypeError) as error:
        raise BrokenArchive(path, f"{SERVER_MANIFEST} names no model, version and handler") from error
    for value in (model, version, handler):
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise HostileArchive(path, f"{SERVER_MANIFEST} has {value!r}; a plain name is required")
    card = _document(path, archive, CARD)
    return ArchiveInfo(
        path=path,
        model=model,
        version=version,
        handler=handler,
        artifact=_parsed(path, archive, DESCRIPTION, Artifact),
        lineage=_parsed(path, archive, LINEAGE, Manifest),
        probe=_parsed(path, archive, PROBE, Probe),
        card=card if isinstance(card, dict) else {},
        files=tuple(sorted(archive.namelist())),
        size_bytes=sum(entry.file_size for entry in archive.infolist()),
    )


def _document(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    """A JSON document of the archive; None where there is none."""
    try:
        entry = archive.getinfo(name)
    except KeyError:
        return None
    if entry.file_size > MAX_DOCUMENT_BYTES:
        raise HostileArchive(path, f"{name} has {entry.file_size} bytes; at most {MAX_DOCUMENT_BYTES} are allowed")
    try:
        return orjson.loads(archive.read(entry))
    except orjson.JSONDecodeError as error:
        raise BrokenArchive(path, f"{name} is no JSON: {error}") from error


def _parsed(path: Path, archive: zipfile.ZipFile, name: str, model: type[M]) -> M | None:
    document = _document(path, archive, name)
    if document is None:
        return None
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BrokenArchive(path, f"{name}: {key or 'the document'}: {first['msg']}") from error
