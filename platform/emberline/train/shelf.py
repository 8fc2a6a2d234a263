"""Where a run's checkpoints lie: in its folder, or in an object store that has neither folders nor renames."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from emberline import storage
from emberline.errors import EmberlineError
from emberline.paper import MANIFEST, read_manifest, verify_paper
from emberline.train import fence

_STAGING = ".staging-"
Why = Callable[[str, str], None]


class Shelf(Protocol):
    """Names are `step-000400`, and sort by step."""

    def names(self, skipped_because: Why | None = None) -> list[str]:
        """All there are, oldest first; those that an overtaken world wrote are told with the reason instead."""

    def workspace(self, generation: int) -> AbstractContextManager[Path]:
        """A local folder to write in, removed in the end."""

    def put(self, paper: Path, generation: int) -> str:
        """Takes a whole paper; returns its name. Raises Fenced, with nothing changed."""

    def fetch(self, name: str) -> AbstractContextManager[Path]:
        """One of them as a local folder."""

    def remove(self, name: str, generation: int) -> None: ...

    def place(self, name: str) -> str: ...

    def claim(self, generation: int) -> None:
        """Makes a generation known here; older ones are fenced out from now on."""

    def check(self, generation: int) -> None:
        """Raises Fenced where a newer generation is known."""

    def newest_generation(self) -> int: ...

    def sweep(self) -> None: ...


def step_of(name: str) -> int:
    """The step in a checkpoint's name."""
    return int(name.removeprefix("step-").partition(".")[0])


class FolderShelf:
    """Checkpoints in the run's own folder, committed through its fence."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder, self._folder = run_folder, run_folder / "checkpoints"

    def names(self, skipped_because: Why | None = None) -> list[str]:  # noqa: ARG002 - here nothing else can be there
        return sorted(path.name for path in self._folder.glob("step-*") if path.is_dir())

    @contextmanager
    def workspace(self, generation: int) -> Iterator[Path]:
        folder = self._folder / f"{_STAGING}{generation}"
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, paper: Path, generation: int) -> str:
        target = self._folder / paper.name
        if _holds(target, paper):  # replacing it takes two renames; overtaken between them, it would be nowhere
            self.check(generation)
        else:
            fence.commit(self._run_folder, generation, paper, target)
        return paper.name

    @contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        yield self._folder / name

    def remove(self, name: str, generation: int) -> None:
        fence.check(self._run_folder, generation)
        shutil.rmtree(self._folder / name)

    def place(self, name: str) -> str:
        return str(self._folder / name)

    def claim(self, generation: int) -> None:
        """The run's folder itself was claimed."""

    def check(self, generation: int) -> None:
        fence.check(self._run_folder, generation)

    def newest_generation(self) -> int:
        return fence.newest_generation(self._run_folder)

    def sweep(self) -> None:
        for path in self._folder.glob(f"{_STAGING}*"):
            shutil.rmtree(path, ignore_errors=True)


def _holds(target: Path, paper: Path) -> bool:
    """Whether a whole checkpoint of the same training and step is there already."""
    new = read_manifest(paper)
    try:
        old = verify_paper(target, "checkpoint")
    except EmberlineError:
        return False
    return (old.recipe, old.facts.get("step")) == (new.recipe, new.facts["step"])


class ObjectShelf:
    """Checkpoints in an object store, as `step-000400.g000007/` with the manifest written last.

    A store has no rename to make conditional. So an overtaken world may still write, but nobody reads it: each claim
    records which checkpoints were there, and one of an older generation that is not in the next claim's record was
    written too late.

    Args:
        location: URL of the folder.
    """

    def __init__(self, location: str) -> None:
        self._location = location.rstrip("/")

    def names(self, skipped_because: Why | None = None) -> list[str]:
        claims = {number: self._accepted(number) for number in self._generations()}
        kept, whole = [], set(self._whole())
        for name in sorted(self._begun()):
            if name not in whole:
                if skipped_because is not None:
                    skipped_because(name, f"it has no {MANIFEST}: its writing was never finished")
                continue
            generation = int(name.partition(".g")[2])
            overtaken_by = min((number for number in claims if number > generation), default=None)
            if overtaken_by is None or name in claims[overtaken_by]:
                kept.append(name)
            elif skipped_because is not None:
                why = f"generation {generation} wrote it after it was overtaken by generation {overtaken_by}"
                skipped_because(name, why)
        return kept

    @contextmanager
    def workspace(self, generation: int) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=f"emberline-{generation}-") as folder:
            yield Path(folder)

    def put(self, paper: Path, generation: int) -> str:
        self.check(generation)
        name = f"{paper.name}.g{generation:06d}"
        files = sorted(path.relative_to(paper) for path in paper.rglob("*") if path.is_file())
        for file in sorted(files, key=lambda one: one.name == MANIFEST):  # the manifest last
            if file.name == MANIFEST:
                self.check(generation)
            storage.copy_file(paper / file, storage.join(self._checkpoints, name, *file.parts))
        self.check(generation)
        self._clear_unfinished(generation)
        return name

    @contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="emberline-") as folder:
            for file in storage.list_files(storage.join(self._checkpoints, name)):
                storage.copy_file(storage.join(self._checkpoints, name, file), Path(folder, name, file))
            yield Path(folder, name)

    def remove(self, name: str, generation: int) -> None:
        self.check(generation)
        folder = storage.join(self._checkpoints, name)
        storage.remove_file(storage.join(folder, MANIFEST))  # first: without it the rest is no checkpoint
        storage.remove_folder(folder)

    def place(self, name: str) -> str:
        return storage.join(self._checkpoints, name)

    def claim(self, generation: int) -> None:
        """Records what is there; a checkpoint that comes later from an older generation does not count."""
        record = json.dumps({"accepted": self.names()}).encode()
        if not storage.write_new(self._record(generation), record):
            raise fence.Fenced(self._location, generation, self.newest_generation())

    def check(self, generation: int) -> None:
        if (newest := self.newest_generation()) != generation:
            raise fence.Fenced(self._location, generation, newest)

    def newest_generation(self) -> int:
        return max(self._generations(), default=0)

    def sweep(self) -> None:
        """Nothing at the start, when what is not whole is still to be told; `put` clears it away."""

    @property
    def _checkpoints(self) -> str:
        return storage.join(self._location, "checkpoints")

    def _record(self, generation: int) -> str:
        return storage.join(self._location, "generations", f"{generation:06d}.json")

    def _begun(self) -> list[str]:
        return [name for name in storage.list_names(self._checkpoints) if name.startswith("step-") and ".g" in name]

    def _whole(self) -> list[str]:
        return [name for name in self._begun() if storage.exists(storage.join(self._checkpoints, name, MANIFEST))]

    def _clear_unfinished(self, generation: int) -> None:
        """Removes what generations before this one left without a manifest."""
        whole = set(self._whole())
        for name in self._begun():
            if name not in whole and int(name.partition(".g")[2]) < generation:
                storage.remove_folder(storage.join(self._checkpoints, name))

    def _generations(self) -> list[int]:
        names = storage.list_names(storage.join(self._location, "generations"))
        return [int(name.removesuffix(".json")) for name in names]

    def _accepted(self, generation: int) -> set[str]:
        content = storage.read_bytes(self._record(generation))
        try:
            return set(json.loads(content)["accepted"])
        except (ValueError, KeyError, TypeError) as error:
            place = self._record(generation)
            hint = "remove the checkpoints of older generations that you do not trust, then this file"
            raise EmberlineError("the record of a generation cannot be read", place=place, hint=hint) from error
