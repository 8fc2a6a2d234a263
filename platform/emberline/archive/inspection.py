"""Imports a handler file and asks it the probe as a TorchServe worker does, and reports what came of it.

Run as a script in a process of its own, `python -I inspection.py HANDLER FILES REPORT`: a user's file may do anything
when it is imported. REPORT gets a JSON object: `fault` with `fact` and `hint`, or else `answers`, two of them to the
same probe.
"""

import importlib.util
import inspect
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

_ERROR = 400
_QUOTED = 300


class _Refused(Exception):
    """The handler answered its probe with an error."""


def main(handler: Path, files: Path, report: Path) -> None:
    sys.path.insert(0, str(files))
    sys.dont_write_bytecode = True  # the files' folder is packed afterwards
    found = fault(handler)
    told: dict[str, Any] = {"fault": found}
    if found is None:
        try:
            told["answers"] = answers(handler, files)
        except BaseException as error:  # noqa: BLE001 - whatever a user's handler raises is the finding
            text = str(error) if isinstance(error, _Refused) else f"{type(error).__name__}: {error}"
            hint = "it was asked as TorchServe asks it, with what a client would send: probe.json has the instance"
            told["fault"] = {"fact": f"does not answer the artifact's probe: {text}", "hint": hint}
    report.write_text(json.dumps(told), encoding="utf-8")


def answers(handler: Path, files: Path) -> list[Any]:
    """What the handler answers to the probe, asked twice: JSON where it is that, else as text.

    Raises:
        _Refused: with a status of 400 or more. Anything else is the handler's own.
    """
    from ts.context import RequestProcessor
    from ts.model_loader import TsModelLoader

    with tempfile.TemporaryDirectory(prefix="emberline-probe-") as name:
        folder = Path(name)
        for file in files.iterdir():
            (folder / file.name).symlink_to(file)
        shutil.copyfile(handler, folder / handler.name)
        model = {"modelName": "probe", "modelVersion": "1.0", "handler": handler.name}
        (folder / "MAR-INF").mkdir()
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": model}), encoding="utf-8")
        sys.path.insert(0, str(folder))
        service = TsModelLoader().load("probe", str(folder), handler.name, None, 1, None)
        body = json.dumps(json.loads((files / "probe.json").read_bytes())["instance"]).encode()
        found = []
        for _ in range(2):
            service.context.request_processor = [RequestProcessor({"content-type": "application/json"})]
            (answer,) = service._entry_point([{"body": body}], service.context)  # noqa: SLF001 - what its worker calls
            status, _ = service.context.get_response_status(0)
            found.append(_read(answer))
            if status is not None and status >= _ERROR:
                raise _Refused(f"{status}: {str(found[-1])[:_QUOTED]}")
        return found


def _read(answer: Any) -> Any:
    """An answer as a client would read it."""
    text = bytes(answer).decode(errors="replace") if isinstance(answer, bytes | bytearray) else answer
    if not isinstance(text, str):
        return json.loads(json.dumps(text))  # TorchServe writes what is no text as JSON
    try:
        return json.loads(text)
    except ValueError:
        return text


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
