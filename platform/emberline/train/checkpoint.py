"""Checkpoints: the state on disk from time to time, as papers that are verified before a number of them is used.

The tensors are safetensors, so that nothing in a checkpoint can run code. Where they lie, in the run's folder or in an
object store, is the shelf's business (`emberline.train.shelf`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from emberline.errors import EmberlineError
from emberline.paper import verify_paper, write_paper
from emberline.train import fence
from emberline.train.shelf import FolderShelf, ObjectShelf, Shelf, step_of
from emberline.train.state import Tensors
from emberline.train.world import World

_STATE = "state.safetensors"
T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    step: int
    tensors: Tensors


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that could not be used, and why."""

    name: str
    why: str


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: the run's folder.
        digest: of what the training computes; a checkpoint of another one is never loaded.
        keep: how many are kept; older ones are removed after a newer one was verified.
        location: URL of a folder in an object store that holds them instead of the run's folder.
    """

    def __init__(self, folder: Path, *, digest: str, keep: int, location: str | None = None) -> None:
        self._run_folder, self._digest, self._keep = folder, digest, keep
        self._shelf: Shelf = ObjectShelf(location) if location else FolderShelf(folder)

    def save(self, step: int, tensors: Tensors, *, seed: int, generation: int) -> str:
        """Writes `step-000400`, meaning that 400 steps are done, then removes what retention lets go.

        Returns:
            Where it lies now.

        Raises:
            Fenced: a newer world trains this run; nothing was changed.
            EmberlineError: the disk is full or the folder cannot be written.
        """
        name = f"step-{step:06d}"
        try:
            with self._shelf.workspace(generation) as workspace:
                with write_paper(workspace / name, "checkpoint", recipe=self._digest, seed=seed) as draft:
                    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, draft.folder / _STATE)
                    draft.facts.update(step=step, generation=generation)
                place = self._shelf.put(workspace / name, generation)
            self._retain(place, step, generation)
        except (OSError, SafetensorError) as error:
            raise self._unwritten(name, error, generation) from error
        return self._shelf.place(place)

    def _unwritten(self, name: str, error: Exception, generation: int) -> EmberlineError:
        """What to say of a save that failed; raises Fenced where a newer world swept away what was being written."""
        self._shelf.check(generation)
        hint = "free some space or repair the folder, then start again: training goes on from the last checkpoint"
        return EmberlineError(f"checkpoint could not be written: {error}", place=self._shelf.place(name), hint=hint)

    def save_together(self, step: int, tensors: Tensors, world: World, *, seed: int, generation: int) -> str:
        """As `save`, of a state that is divided among the workers: all call it together, and each writes its part.

        The folder must be one that all of them see.
        """
        from emberline.train import dcp

        name = f"step-{step:06d}"
        if world.rank != 0:
            dcp.write(Path(world.gather("")[0]), tensors)
            return self._shelf.place(name)
        try:
            with self._shelf.workspace(generation) as workspace:
                with write_paper(workspace / name, "checkpoint", recipe=self._digest, seed=seed) as draft:
                    dcp.write(Path(world.gather(str(draft.folder.resolve()))[0]), tensors)
                    draft.facts.update(step=step, generation=generation)
                place = self._shelf.put(workspace / name, generation)
            self._retain(place, step, generation)
        except OSError as error:
            raise self._unwritten(name, error, generation) from error
        return self._shelf.place(place)

    def newest(self, skipped: list[Skipped]) -> tuple[int, Path] | None:
        """Steps done and folder of the newest checkpoint that verifies, where checkpoints lie in the run's folder."""
        return self._newest(skipped, lambda path, step: (step, path.resolve()))

    def load_newest(self, skipped: list[Skipped]) -> Loaded | None:
        """The newest checkpoint that verifies; what was passed over is appended to `skipped`."""
        return self._newest(skipped, lambda path, step: Loaded(step, load_file(path / _STATE)))

    def _newest(self, skipped: list[Skipped], read: Callable[[Path, int], T]) -> T | None:
        for name in reversed(self._shelf.names(skipped_because=lambda *why: skipped.append(Skipped(*why)))):
            try:
                with self._shelf.fetch(name) as path:
                    if (why := self._unfit(path, step_of(name))) is None:
                        return read(path, step_of(name))
                skipped.append(Skipped(name, why))
            except (EmberlineError, SafetensorError, KeyError, OSError) as error:
                skipped.append(Skipped(name, str(error).partition("\nhint: ")[0]))
        return None

    def claim_generation(self) -> int:
        """Takes the next generation number; from now on worlds of older ones can commit nothing."""
        number = fence.claim_generation(self._run_folder, above=self._shelf.newest_generation())
        self._shelf.claim(number)
        return number

    @property
    def location(self) -> str:
        return self._shelf.place("")

    def sweep(self) -> None:
        """Removes what interrupted writers left."""
        self._shelf.sweep()

    def newest_step(self) -> int:
        """Steps done of the newest checkpoint by name, whether it is whole or not; -1 without any."""
        return max((step_of(name) for name in self._shelf.names()), default=-1)

    def _unfit(self, path: Path, step: int) -> str | None:
        """Why a whole checkpoint is not this training's, or not what its name says."""
        manifest = verify_paper(path, "checkpoint")
        if manifest.recipe != self._digest:
            return "it belongs to another recipe"
        if manifest.facts["step"] != step:
            return f"its manifest tells of step {manifest.facts['step']}"
        return None

    def _retain(self, newest: str, step: int, generation: int) -> None:
        """Lets older ones go, after the newest was read back whole."""
        with self._shelf.fetch(newest) as path:
            verify_paper(path, "checkpoint")
        older = [name for name in self._shelf.names() if name != newest]
        for name in older[: max(0, len(older) - self._keep + 1)]:
            if step_of(name) < step:
                self._shelf.remove(name, generation)
