"""What is sent: files as they are, or rows of a recipe's data as a client would send them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from emberline.data.rows import in_json
from emberline.errors import MissingFile

_IMAGES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
_MAX_ROWS = 1000


@dataclass(frozen=True)
class Body:
    content: bytes
    content_type: str


def from_files(paths: Sequence[Path]) -> list[Body]:
    """One body a file, a folder standing for all files in it; images by what they begin with, anything else as JSON.

    Raises:
        MissingFile: a file is not there, or a folder is empty.
    """
    found: list[Path] = []
    for path in paths:
        files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise MissingFile(path, "a body to send", hint="a JSON file, a JPEG or PNG, or a folder of such")
        found += files
    return [body_of(path.read_bytes()) for path in found]


def from_rows(rows: Any) -> list[Body]:
    """The first rows of a split, as many as a load needs to be varied."""
    return [_of_instance(rows[number][0]) for number in range(min(len(rows), _MAX_ROWS))]


def body_of(content: bytes) -> Body:
    kind = next((kind for magic, kind in _IMAGES.items() if content.startswith(magic)), "application/json")
    return Body(content, kind)


def _of_instance(instance: Mapping[str, Any]) -> Body:
    if len(instance) == 1 and isinstance(only := next(iter(instance.values())), bytes):
        return body_of(only)
    ready = {name: in_json(value) for name, value in instance.items()}
    return Body(orjson.dumps(ready, option=orjson.OPT_SERIALIZE_NUMPY), "application/json")
