"""A stage's folder in the cache, and the hashes it was written with: what was altered is made again. No torch."""

import json
from pathlib import Path
from typing import Any

from emberline import storage
from emberline.compress.plan import STATE
from emberline.paper import digest_of

_FILES, _SEAL = "files", "seal"


def sealed(described: dict[str, Any], folder: Path) -> bytes:
    """The content of `state.json`, with hashes of all other files of the folder and of itself."""
    files = {path.name: storage.content_hash(path) for path in sorted(folder.iterdir())}
    content = json.loads(json.dumps({**described, _FILES: files}))
    return json.dumps({**content, _SEAL: digest_of(content)}, indent=1).encode()


def altered(folder: Path) -> str | None:
    """The file that is not as it was written, or None; `state.json` must be there."""
    try:
        content = json.loads((folder / STATE).read_bytes())
    except ValueError:
        return STATE
    if not isinstance(content, dict) or content.pop(_SEAL, None) != digest_of(content):
        return STATE
    files: dict[str, str] = content[_FILES]
    wrong = (name for name, known in files.items() if not _is(folder / name, known))
    return next(wrong, None)


def _is(path: Path, known: str) -> bool:
    return path.is_file() and storage.content_hash(path) == known
