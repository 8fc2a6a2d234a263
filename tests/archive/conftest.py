"""One tiny artifact, archived."""

import shutil

import pytest

from emberline import signing
from emberline.recipe import Archive


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    return signing.create_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def runs(tiny_runs, tmp_path):
    """The runs of a test's own, to be altered."""
    return shutil.copytree(tiny_runs, tmp_path / "runs")


@pytest.fixture
def artifact(runs):
    return runs / "tiny" / "artifacts" / "fp32"


@pytest.fixture
def settings():
    return Archive(model="tiny", versions={"fp32": "1.0"}, licence="CC0-1.0")
