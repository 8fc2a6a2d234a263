"""Checkpoints: the state on disk from time to time, as papers that are verified before a number of them is used.

The tensors are safetensors, so that nothing in a checkpoint can run code.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from emberline.errors import EmberlineError
from emberline.paper import verify_paper, write_paper
from emberline.train import fence
from emberline.train.state import Tensors

_STATE = "state.safetensors"
_STAGING = ".staging-"


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
    """

    def __init__(self, folder: Path, *, digest: str, keep: int) -> None:
        self.folder, self._run_folder, self._digest, self._keep = folder / "checkpoints", folder, digest, keep

    def save(self, step: int, tensors: Tensors, *, seed: int, generation: int) -> Path:
        """Writes `step-000400`, meaning that 400 steps are done, then removes what retention lets go.

        Raises:
            Fenced: a newer world trains this run; nothing was changed.
            EmberlineError: the disk is full or the folder cannot be written.
        """
        name = f"step-{step:06d}"
        staging = self.folder / f"{_STAGING}{generation}"
        try:
            with write_paper(staging / name, "checkpoint", recipe=self._digest, seed=seed) as draft:
                save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, draft.folder / _STATE)
                draft.facts.update(step=step, generation=generation)
            with fence.commit(self._run_folder, generation):
                target = self.folder / name
                if target.exists():
                    shutil.rmtree(target)
                (staging / name).rename(target)
        except (OSError, SafetensorError) as error:
            hint = "free some space or repair the folder, then start again: training goes on from the last checkpoint"
            raise EmberlineError(
                f"checkpoint could not be written: {error}", place=self.folder / name, hint=hint
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._retain(target)
        return target

    def load_newest(self, skipped: list[Skipped]) -> Loaded | None:
        """The newest checkpoint that verifies; what was passed over is appended to `skipped`."""
        for path in reversed(list(self._paths())):
            try:
                manifest = verify_paper(path, "checkpoint")
                if manifest.recipe != self._digest:
                    skipped.append(Skipped(path.name, "it belongs to another recipe"))
                    continue
                if manifest.facts["step"] != read_step(path):
                    skipped.append(Skipped(path.name, f"its manifest tells of step {manifest.facts['step']}"))
                    continue
                return Loaded(read_step(path), load_file(path / _STATE))
            except (EmberlineError, SafetensorError, KeyError) as error:
                skipped.append(Skipped(path.name, str(error).partition("\nhint: ")[0]))
        return None

    def sweep(self) -> None:
        """Removes what interrupted writers left."""
        for path in self.folder.glob(f"{_STAGING}*"):
            shutil.rmtree(path, ignore_errors=True)

    def newest_step(self) -> int:
        """Steps done of the newest checkpoint by name, whether it is whole or not; -1 without any."""
        return max((read_step(path) for path in self._paths()), default=-1)

    def _paths(self) -> Iterator[Path]:
        yield from sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _retain(self, newest: Path) -> None:
        verify_paper(newest, "checkpoint")
        older = [path for path in self._paths() if path != newest]
        for path in older[: max(0, len(older) - self._keep + 1)]:
            if read_step(path) < read_step(newest):
                shutil.rmtree(path)


def read_step(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))
