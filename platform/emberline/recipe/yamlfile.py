"""One mapping from a YAML file, plain and without doubles."""

from pathlib import Path
from typing import Any

import yaml

from emberline.errors import InvalidFile


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML mapping from a file, by `safe_load`.

    Raises:
        InvalidFile: it is a folder, no UTF-8, no plain YAML, no mapping, or has a key twice.
    """
    if path.is_dir():
        raise InvalidFile(path, "is a folder; a YAML file is required", hint=f"name a file in it: {path}/….yaml")
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_doubles(yaml.compose(text, Loader=yaml.SafeLoader), "", path, set())
        raw = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise InvalidFile(path, f"byte {error.start} is no UTF-8", hint="save the file in UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidFile(path, f"no YAML: {where}{error.problem}", hint="plain YAML in UTF-8 is read") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow; its own text runs over several lines
        raise InvalidFile(path, f"no YAML: {str(error).splitlines()[0]}", hint="plain YAML in UTF-8 is read") from error
    if not isinstance(raw, dict):
        got = "empty" if raw is None else f"a {type(raw).__name__}"
        raise InvalidFile(path, f"the file is {got}; a YAML mapping of keys to values is required")
    return raw


def _refuse_doubles(node: yaml.Node | None, above: str, path: Path, seen: set[int]) -> None:
    """Refuses a key that a mapping has twice, of which `safe_load` would take the last in silence."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _refuse_doubles(item, f"{above}{number}.", path, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in lines:
                fact = f"line {line}: {above}{name} is there a second time, after line {lines[name]}"
                raise InvalidFile(path, fact, hint="keep the one that is meant")
            lines[name] = line
            _refuse_doubles(value, f"{above}{name}.", path, seen)
