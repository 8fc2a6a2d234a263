"""What TorchServe and an archive ask of the handlers' files."""

import ast
import sys

import pytest
from ts.model_loader import TsModelLoader
from ts.utils.util import list_classes_from_module

THIRD_PARTY = {"numpy", "orjson", "PIL", "torch", "ts", "onnxruntime", "openvino", "tokenizers"}


@pytest.mark.parametrize(
    "handler",
    [f"{name}_handler.py" for name in ("tensor", "image", "text", "ranking", "cascade", "detection", "segmentation")],
)
def test_a_handler_file_defines_exactly_one_class(handler):
    module, _ = TsModelLoader()._load_handler_file(handler)
    assert len(list_classes_from_module(module)) == 1


def test_handlers_import_nothing_that_a_stock_torchserve_lacks(root):
    files = sorted((root / "handlers").glob("*.py"))
    own = {file.stem for file in files}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                top = name.partition(".")[0]
                assert top in THIRD_PARTY | own or top in sys.stdlib_module_names, f"{file.name} imports {name}"


def test_handlers_use_torchserve_itself(root):
    assert any("from ts" in file.read_text() for file in (root / "handlers").glob("*.py"))
