"""Files of papers, on a local path or an object store alike; nothing else in the package knows which.

A location is a path (`runs/digits`) or a URL that fsspec opens (`s3://bucket/runs/digits`, `memory://x`).
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import fsspec
import xxhash

_CHUNK_BYTES = 1 << 20


def is_local(location: str | Path) -> bool:
    return "://" not in str(location)


def join(location: str | Path, *names: str) -> str:
    return str(Path(location, *names)) if is_local(location) else "/".join((str(location).rstrip("/"), *names))


def exists(location: str | Path) -> bool:
    system, path = _fresh(location)
    return bool(system.exists(path))


def list_names(location: str | Path) -> list[str]:
    """Names directly under a folder, sorted; none for a folder that does not exist."""
    system, path = _fresh(location)
    if not system.exists(path):
        return []
    return sorted(PurePosixPath(entry).name for entry in system.ls(path, detail=False))


@contextmanager
def open_read(location: str | Path) -> Iterator[IO[bytes]]:
    system, path = _fresh(location)
    with system.open(path, "rb") as file:
        yield cast("IO[bytes]", file)


def read_bytes(location: str | Path) -> bytes:
    with open_read(location) as file:
        return file.read()


def write_bytes(location: str | Path, content: bytes) -> None:
    """Writes one file so that a reader sees all of it or none: temporary name, fsync, rename, fsync of the folder."""
    if not is_local(location):
        with fsspec.open(str(location), "wb") as remote:  # object stores publish an object when it is closed
            cast("Any", remote).write(content)
        return
    path = Path(location)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    sync_folder(path.parent)


def write_new(location: str | Path, content: bytes) -> bool:
    """Writes one file unless there is one; False where there was. Of several writers at once, one has True."""
    if is_local(location):
        path = Path(location)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        write_bytes(partial, content)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        sync_folder(path.parent)
        return True
    try:
        with fsspec.open(str(location), "xb") as remote:
            cast("Any", remote).write(content)
    except FileExistsError:
        return False
    return True


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copies one file, piece by piece, from anywhere to anywhere."""
    if is_local(target):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    with open_read(source) as reading, fsspec.open(str(target), "wb") as writing:
        shutil.copyfileobj(reading, cast("Any", writing), _CHUNK_BYTES)


def list_files(location: str | Path) -> list[str]:
    """Paths of all files under a folder, relative to it, sorted."""
    system, path = _fresh(location)
    return sorted(str(PurePosixPath(one).relative_to(PurePosixPath(path))) for one in system.find(path))


def remove_file(location: str | Path) -> None:
    system, path = fsspec.core.url_to_fs(str(location))
    system.rm_file(path)


def remove_folder(location: str | Path) -> None:
    """Removes a folder and all under it, if it is there."""
    system, path = fsspec.core.url_to_fs(str(location))
    if system.exists(path):
        system.rm(path, recursive=True)


def sync_folder(path: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content_hash(location: str | Path) -> str:
    """The xxh3-128 of a file's bytes, as hex: 35 ms per 100 MB, so it can be checked at every read."""
    digest = xxhash.xxh3_128()
    with open_read(location) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return str(digest.hexdigest())


def size_bytes(location: str | Path) -> int:
    system, path = fsspec.core.url_to_fs(str(location))
    return int(system.size(path))


def _fresh(location: str | Path) -> tuple[Any, str]:
    """The file system of a location and the path in it, without what it remembers: other processes write there too."""
    system, path = fsspec.core.url_to_fs(str(location))
    system.invalidate_cache(path)
    return system, path
