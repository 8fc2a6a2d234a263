"""The files that ask to be served; a folder that is away, as when a mount was lost, says nothing of what it held."""

from collections.abc import Sequence
from pathlib import Path


class Shelf:
    """The archives that were named, or all of the store; used by one thread.

    A mount that is lost leaves an empty folder, on the device of the folder that holds it: this tells it from a folder
    whose archives were removed.
    """

    def __init__(self, named: Sequence[Path], store: Path) -> None:
        self._named, self._store = tuple(named), store
        self._devices = {folder: _device(folder) for folder in ({path.parent for path in named} or {store})}

    def look(self) -> tuple[tuple[Path, ...], frozenset[Path]]:
        """The archives that there may be, and the folders that are away."""
        found = self._named or tuple(sorted(self._store.glob("*.mar")))
        held = {path.parent for path in found if path.is_file()}
        away = set()
        for folder, known in self._devices.items():
            now = _device(folder)
            if folder in held:
                self._devices[folder] = now  # mounted again it is another device
            elif now is None or now != known:
                away.add(folder)
        return found, frozenset(away)


def _device(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except (FileNotFoundError, NotADirectoryError):
        return None
