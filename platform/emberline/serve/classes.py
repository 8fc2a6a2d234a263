"""Java's classes, kept ready from one start to the next, which takes away half of what java's start costs.

It is java's own class data sharing: a file made from the classes that one run loaded, mapped into the memory of later
ones. Java compares it with its class path and its own version, and starts without it where they differ. The file is
made once a machine, in the background of the first `serve` there, and is used from the second on.
"""

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emberline import process, storage
from emberline.runlog import warn

_LISTED_AT = (1980, 1, 1, 0, 0, 0)
_NICENESS = "19"


@dataclass(frozen=True)
class SharedClasses:
    """Where the shared classes of one class path are, or will be.

    Attributes:
        file: what java maps.
        listing: names of the classes loaded by a run without it.
    """

    java: Path
    class_path: tuple[str, ...]
    file: Path
    listing: Path

    @property
    def options(self) -> tuple[str, ...]:
        """What java is to be told: to use the file, or to write down what one could be made from."""
        if self.file.is_file():
            # a file that does not suit is java's to say, and no reason not to start
            return (f"-XX:SharedArchiveFile={self.file}", "-Xlog:cds=off")
        return (f"-XX:DumpLoadedClassList={self.listing}",)

    def make(self, log: Path) -> process.Child | None:
        """Starts to make the file, where there is none and there is something to make it from."""
        if self.file.is_file() or not self.listing.is_file():
            return None
        content = self.listing.read_bytes()
        complete = self.listing.with_suffix(".complete")
        complete.write_bytes(content[: content.rfind(b"\n") + 1])  # java is still writing it
        command: list[str | Path] = [
            "nice",
            "-n",
            _NICENESS,
            self.java,
            "-Xshare:dump",
            "-XX:+UseSerialGC",
            "-Xlog:disable",
        ]
        command += [f"-XX:SharedClassListFile={complete}", f"-XX:SharedArchiveFile={self._partial}"]
        command += ["-cp", os.pathsep.join(self.class_path)]
        return process.start(command, name="java's shared classes", log=log, grace_s=0.0)

    def keep(self) -> None:
        """Puts what was made in place, whole."""
        self._partial.replace(self.file)

    @property
    def _partial(self) -> Path:
        return self.listing.with_suffix(".jsa")


def find(java: Path, class_path: Sequence[str], work: Path) -> SharedClasses:
    """The shared classes of a class path; without a cache that can be written, those of this instance alone."""
    try:
        return _find(java, class_path, work, cache_folder())
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        warn(f"java's classes are not kept ready for the next start: {error}")
        return _find(java, class_path, work, work / "cache")


def _find(java: Path, class_path: Sequence[str], work: Path, cache: Path) -> SharedClasses:
    """Folders of the class path are turned into jars, as java shares no classes of folders."""
    cache.mkdir(parents=True, exist_ok=True)
    entries = tuple(_jar(Path(entry), cache) if Path(entry).is_dir() else entry for entry in class_path)
    key = hashlib.sha256()
    for entry in entries:
        for file in sorted(Path(entry).parent.glob(Path(entry).name)):
            facts = file.stat()
            key.update(f"{file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    release = java.parents[1] / "release"
    key.update(release.read_bytes() if release.is_file() else str(java).encode())
    return SharedClasses(java, entries, cache / f"{key.hexdigest()[:32]}.jsa", work / "classes.lst")


def cache_folder() -> Path:
    """Where this user keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emberline" / "java"


def _jar(folder: Path, cache: Path) -> str:
    """A folder of classes as a jar in the cache, named by its content."""
    files = [path for path in sorted(folder.rglob("*.class")) if path.is_file()]
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    target = cache / f"{digest.hexdigest()[:32]}.jar"
    if not target.is_file():
        partial = folder.with_suffix(".jar")
        with zipfile.ZipFile(partial, "w") as jar:
            for path in files:
                jar.writestr(zipfile.ZipInfo(str(path.relative_to(folder)), _LISTED_AT), path.read_bytes())
        storage.write_bytes(target, partial.read_bytes())
    return str(target)
