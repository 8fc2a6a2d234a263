"""`--set a.b.0.c=value`, laid over what a file says."""

from collections.abc import Iterable
from typing import Any

import yaml

from emberline.errors import InvalidSetting

_SET_HINT = "such as --set train.epochs=3 or --set compress.artifacts.int8.stages.0.ratio=0.25"


def overlay(raw: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Lays `a.b.0.c=value` settings over nested mappings and lists; returns a changed copy.

    Raises:
        InvalidSetting: a setting has no equals sign, no YAML after it, or leads nowhere.
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(raw))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InvalidSetting("--set", "setting", setting, "key=value", hint=_SET_HINT)
        *parents, last = key.split(".")
        node: Any = result
        for part in parents:
            node = node.setdefault(part, {}) if isinstance(node, dict) else _list_item(node, part, key)
        if isinstance(node, list):
            _list_item(node, last, key)
            node[int(last)] = _value(text, setting)
        elif isinstance(node, dict):
            node[last] = _value(text, setting)
        else:
            raise InvalidSetting("--set", key, node, "a mapping or list above the last key", hint=_SET_HINT)
    return result


def _list_item(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    if isinstance(node, list):
        hint = f"the list has {len(node)} items, counted from 0"
        raise InvalidSetting("--set", key, part, "an index that the list has", hint=hint)
    raise InvalidSetting("--set", key, part, "a key above it", hint=_SET_HINT)


def _value(text: str, setting: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        hint = "quote what YAML would read otherwise: --set 'key=\"a: b\"'"
        raise InvalidSetting("--set", "value", setting, "YAML after the equals sign", hint=hint) from error
