"""Making a module: factory → structural edits → weights."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from emberline.artifact import Artifact
from emberline.errors import CorruptPaper, EmberlineError, InvalidSetting, MissingFile
from emberline.models.edits import apply_edits
from emberline.models.example import example_inputs
from emberline.recipe import Model


def resolve(reference: str, search: Path | None = None) -> Callable[..., Any]:
    """The function that `module:function` names.

    Args:
        search: folder of the recipe, put first on `sys.path` so that a user's modules beside it are found.

    Raises:
        InvalidSetting: there is no such module, or it has no such function.
    """
    if search is not None and str(search.resolve()) not in sys.path:
        sys.path.insert(0, str(search.resolve()))
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            # the user's module is there and lacks one of its own: say that one's name
            raise EmberlineError(f"imports {error.name!r}, which is not installed", place=module_name) from error
        hint = f"modules beside the recipe are found: {search}" if search else "name an installed module"
        raise InvalidSetting(reference, "module", module_name, "a module that can be imported", hint=hint) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InvalidSetting(reference, "function", name, f"a function of {module_name}")
    return function  # type: ignore[no-any-return]  # what a user's module holds is known when it is called


def create(model: Model, search: Path | None = None) -> nn.Module:
    """Calls the factory with the recipe's arguments; weights come from torch's seed, which the caller sets.

    Raises:
        InvalidSetting: what came back is no module.
        EmberlineError: the factory failed.
    """
    factory = resolve(model.factory, search)
    try:
        module = factory(**model.arguments)
    except Exception as error:
        # a user's own code may fail in any way; which function it was is what helps
        raise EmberlineError(
            f"failed with {type(error).__name__}: {error}",
            place=f"model.factory {model.factory}",
            hint=f"it was called with {model.arguments}",
        ) from error
    if not isinstance(module, nn.Module):
        raise InvalidSetting(model.factory, "what it returned", type(module).__name__, "a torch.nn.Module")
    return module


def build(folder: Path, artifact: Artifact, search: Path | None = None) -> nn.Module:
    """The module an artifact describes, in eval mode, on the CPU.

    Args:
        folder: the artifact's folder, already verified by `read_artifact`.

    Raises:
        MissingFile: the artifact keeps no weights, or their file is gone.
        CorruptPaper: the weights are not those of this module.
    """
    if artifact.weights is None:
        raise MissingFile(folder, "a file of weights", hint="this artifact keeps packages only; use its parent")
    path = folder / artifact.weights
    if not path.is_file():
        raise MissingFile(path, "the file of weights")
    module = create(artifact.model, search)
    apply_edits(module, artifact.edits, example_inputs(artifact.preprocessing))
    try:
        module.load_state_dict(load_file(path), strict=True)
    except (RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()
        got = (first[1] if len(first) > 1 else first[0]).strip()
        hint = f"was {artifact.model.factory} changed since?"
        raise CorruptPaper(path, got, "the weights of its own model", hint=hint) from error
    return module.eval()


def failing_layer(error: BaseException, module: nn.Module) -> str | None:
    """The path of the innermost layer of `module` that an exception went through; None if there is none.

    Its `forward`, or a library's function that was given the layer under one of the usual names.
    """
    names = {id(layer): name or type(module).__name__ for name, layer in module.named_modules()}
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        seen = traceback.tb_frame.f_locals
        for owner in (seen.get("self"), seen.get("layer"), seen.get("module")):
            if isinstance(owner, nn.Module) and id(owner) in names and (owner is not module or found is None):
                found = f"{names[id(owner)]} ({type(owner).__name__})"
        traceback = traceback.tb_next
    return found


def parameters_dtype(module: nn.Module) -> torch.dtype:
    """The one dtype of all parameters.

    Raises:
        EmberlineError: there is more than one, or there are no parameters.
    """
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if len(dtypes) != 1:
        got = ", ".join(sorted(str(dtype) for dtype in dtypes)) or "none"
        raise EmberlineError(f"parameters are {got}; one floating-point type is required", place=type(module).__name__)
    return dtypes.pop()
