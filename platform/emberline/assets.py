"""Where the files that travel with the package are: handlers, Kubernetes manifests, recipes.

A wheel carries them inside the package; a checkout (editable installs included) has them at its root.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from emberline.errors import MissingFile

_INSTALLED = Path(__file__).parent / "_assets"
_CHECKOUT = Path(__file__).parents[2]


def folder(name: str) -> Path:
    """The folder `handlers`, `k8s` or `recipes`.

    Raises:
        MissingFile: neither the installed package nor a checkout has it.
    """
    for root in (_INSTALLED, _CHECKOUT):
        if (root / name).is_dir():
            return root / name
    raise MissingFile(_INSTALLED / name, f"the package's folder {name!r}", hint="install emberline again")


def handler_module(name: str) -> ModuleType:
    """Imports one of the handlers' shared modules, such as `ember_preprocessing`, outside TorchServe.

    Handlers never import emberline, so what both sides must agree on lives with the handlers and is read from there.
    """
    if name in sys.modules:
        return sys.modules[name]
    path = folder("handlers") / f"{name}.py"
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # they import each other flat, as in an archive
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise MissingFile(path, "the handler module", hint="install emberline again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
