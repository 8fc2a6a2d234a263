"""Imports a handler file as a TorchServe worker does, and reports what the worker would stumble over.

Run as a script in a process of its own, `python -I inspection.py HANDLER FILES REPORT`: a user's file may do anything
when it is imported. REPORT gets `null`, or a JSON object with `fact` and `hint`.
"""

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType


def main(handler: Path, files: Path, report: Path) -> None:
    sys.path.insert(0, str(files))
    sys.dont_write_bytecode = True  # the files' folder is packed afterwards
    report.write_text(json.dumps(fault(handler)), encoding="utf-8")


def fault(handler: Path) -> dict[str, str] | None:
    """What is wrong with a handler file, or None."""
    try:
        module = _load(handler)
    except BaseException as error:  # noqa: BLE001 - whatever a user's file raises is the finding
        return {
            "fact": f"cannot be imported: {type(error).__name__}: {error}",
            "hint": "an archive holds this one file and emberline's ember_*.py; TorchServe hides import errors",
        }
    if "emberline" in sys.modules:
        return {
            "fact": "imports emberline, which is not there where the archive is served",
            "hint": "the archive has ember_handler, ember_preprocessing and others for that",
        }
    classes = _classes(module)
    if len(classes) != 1:
        names = ", ".join(one.__name__ for one in classes) or "none"
        return {
            "fact": f"defines {len(classes)} classes ({names}); TorchServe requires exactly one",
            "hint": "helpers, dataclasses and exceptions count too; functions do not",
        }
    return _class_fault(classes[0])


def _class_fault(handler: type) -> dict[str, str] | None:
    for method, arguments in (("initialize", ("context",)), ("handle", ("data", "context"))):
        function = getattr(handler, method, None)
        if not callable(function):
            return {
                "fact": f"{handler.__name__} has no method {method}",
                "hint": f"def {method}(self, {', '.join(arguments)})",
            }
        try:
            inspect.signature(function).bind(None, *arguments)
        except TypeError as error:
            return {
                "fact": f"{handler.__name__}.{method} cannot be called with {', '.join(arguments)}: {error}",
                "hint": f"def {method}(self, {', '.join(arguments)})",
            }
    try:
        inspect.signature(handler).bind()
    except TypeError as error:
        return {"fact": f"{handler.__name__} cannot be made without arguments: {error}", "hint": "set up in initialize"}
    return None


def _load(handler: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(handler.stem, handler)
    if spec is None or spec.loader is None:
        raise ImportError(handler)
    module = importlib.util.module_from_spec(spec)
    sys.modules[handler.stem] = module
    spec.loader.exec_module(module)
    return module


def _classes(module: ModuleType) -> list[type]:
    from ts.utils.util import list_classes_from_module  # TorchServe's own count is the one that matters

    classes: list[type] = list_classes_from_module(module)
    return classes


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
