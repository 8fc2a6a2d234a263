"""The guide for one's own model is run as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs/guides/your-model.md"


def block(language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert match, f"the guide has no {language} block"
    return match[1]


def emberline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emberline.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "iris_net.py").write_text(block("python"))
    (folder / "iris.yaml").write_text(block("yaml"))
    return folder


@pytest.mark.long
def test_the_guides_net_trains_compresses_and_is_archived(folder: Path) -> None:
    for verb in ("train", "compress", "archive"):
        done = emberline(folder, verb, "iris.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (folder / "store").glob("*.mar")) == ["iris-1.0.mar", "iris-1.1.mar"]
    shown = emberline(folder, "show", "store/iris-1.1.mar")
    assert "from run iris" in shown.stdout, shown.stdout + shown.stderr


def test_a_misspelt_key_is_refused_with_the_nearest_known_one(folder: Path) -> None:
    done = emberline(folder, "train", "iris.yaml", "--set", "train.epoch=3")
    assert done.returncode == 1
    assert "train.epoch is not a known key" in done.stderr
    assert "did you mean 'epochs'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_function_that_is_not_there_is_named(folder: Path) -> None:
    done = emberline(folder, "train", "iris.yaml", "--set", "run=other", "--set", "model.factory=iris_net:nett")
    assert done.returncode == 1
    assert "nett" in done.stderr
    assert "Traceback" not in done.stderr
