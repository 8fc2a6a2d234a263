"""The synthetic traffic of tests/compare, for the tests of this floor."""

import importlib.util
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[1] / "compare" / "traffic.py"


def _load():
    if "emberline_test_traffic" not in sys.modules:
        spec = importlib.util.spec_from_file_location("emberline_test_traffic", _PATH)
        module = importlib.util.module_from_spec(spec)
        sys.modules["emberline_test_traffic"] = module
        spec.loader.exec_module(module)
    return sys.modules["emberline_test_traffic"]


@pytest.fixture(scope="session")
def made():
    """The module that makes experiments and traffic."""
    return _load()


@pytest.fixture
def traffic(made, tmp_path):
    return made.Traffic(tmp_path / "data")
