"""What a step depends on besides the recipe: files of the user's code and of rows, as digests. No torch is needed."""

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any

import emberline
from emberline import storage
from emberline.paper import digest_of

_PACKAGE = Path(emberline.__file__).parent
_WHOLE_BYTES = 256 << 20  # of all files of rows together: hashed in a tenth of a second


def code_digest(references: Iterable[str | None], search: Path | None) -> str:
    """Of the files that functions `module:function` stand in, and of those beside the recipe that these import."""
    files = {path for one in references if one for path in _source_files(one.partition(":")[0], search)}
    return files_digest(files)


def files_digest(files: Iterable[Path]) -> str:
    """Of names and contents."""
    return digest_of([[path.name, storage.content_hash(path)] for path in sorted(files)])


def rows_digest(arguments: Any) -> str:
    """Of the files that a data source's arguments name, patterns included; of large ones size and time of change."""
    files = sorted({path for text in _strings(arguments) for path in _files_of(text)})
    whole = sum(path.stat().st_size for path in files) <= _WHOLE_BYTES
    return digest_of({str(path): storage.content_hash(path) if whole else _looks(path) for path in files})


def _looks(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one)


def _files_of(text: str) -> list[Path]:
    found = [Path(name) for name in glob(text)] if text else []  # noqa: PTH207 - the pattern may be absolute
    return [path for path in found if path.is_file()]


def _source_files(module: str, search: Path | None) -> set[Path]:
    """Of a module, found without running it where it stands beside the recipe."""
    if search is not None and _in(search, module):
        return _reached(module, search)
    own = _in(_PACKAGE.parent, module)
    if own:
        return set(own)
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        return set()  # the stage that needs it says what is wrong
    return {Path(found.origin)} if found and found.origin and Path(found.origin).is_file() else set()


def _reached(module: str, root: Path) -> set[Path]:
    """The files of a module and of all that it imports, and these in turn, as far as they are under a folder."""
    waiting, files = [module], set()
    while waiting:
        name = waiting.pop()
        for path in _in(root, name):
            if path not in files:
                files.add(path)
                waiting += _imported(path, root)
    return files


def _in(root: Path, module: str) -> list[Path]:
    """A module's file under a folder, after those of the packages around it; none where it is not there."""
    parts = module.split(".")
    whole = root.joinpath(*parts)
    file = next((path for path in (whole.with_suffix(".py"), whole / "__init__.py") if path.is_file()), None)
    around = [root.joinpath(*parts[:count], "__init__.py") for count in range(1, len(parts))]
    return [] if file is None else [*(path for path in around if path.is_file()), file]


def _imported(path: Path, root: Path) -> list[str]:
    """Names that a file imports: modules, and what may be modules in packages."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return []  # who imports it is told
    package = path.relative_to(root).parent.parts
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names += [origin, *(f"{origin}.{one.name}" if origin else one.name for one in node.names)]
    return [name for name in names if name]
