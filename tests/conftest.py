"""Facts about where the tests run, and small artifacts that are quick to make."""

import contextlib
import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

settings.register_profile("untimed", deadline=None)  # speed is for benchmarks: a busy machine must not fail a test
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts background jobs with Ctrl-C ignored, and every process below would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@contextlib.contextmanager
def mounted(folder: Path, mebibytes: int):
    """A file system of that size in an empty folder; skips where none can be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all room that is left; removing it makes room again."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


@pytest.fixture
def mount_disk():
    """Mounts a small file system while its block runs."""
    return mounted


@pytest.fixture
def fill_disk():
    """Fills a file system."""
    return fill


@pytest.fixture(scope="session")
def made():
    """The module that makes experiments and synthetic traffic, for compare and what stands on it."""
    name = "emberline_test_traffic"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests/compare/traffic.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def traffic(made, tmp_path):
    return made.Traffic(tmp_path / "data")


def write_exported_artifact(folder, module, preprocessing, instance, labels=(), *, task="classification"):
    """An artifact whose one package is `module` as torch.export has it: seconds, where compiling takes a minute."""
    import torch

    from emberline import assets, paper
    from emberline.artifact import DESCRIPTION, PROBE, Artifact, Package, Probe, to_json
    from emberline.recipe import Model, Preprocessing

    recipe = Preprocessing.model_validate(preprocessing)
    row = assets.handler_module("ember_preprocessing").Preprocessing(recipe.model_dump())(instance)
    batch = tuple(torch.from_numpy(array)[None].repeat(2, *([1] * array.ndim)) for array in row)
    rows = torch.export.Dim("rows", min=1, max=64)
    program = torch.export.export(module.eval(), batch, dynamic_shapes=tuple({0: rows} for _ in batch))
    expected = module(*(value[:1] for value in batch))[0].flatten().tolist()
    package = Package(
        file="model.pt2", backend="exported", precision="fp32", max_batch=64, torch=str(torch.__version__)
    )
    model = Model(factory="emberline.models.mlp:mlp")
    described = Artifact(model=model, preprocessing=recipe, labels=tuple(labels), task=task, packages=(package,))
    with paper.write_paper(folder, "artifact", seed=0) as draft:
        torch.export.save(program, draft.folder / package.file)
        (draft.folder / DESCRIPTION).write_bytes(to_json(described))
        (draft.folder / PROBE).write_bytes(to_json(Probe(instance=instance, expected=expected, tolerance=1e-4)))
    return folder


@pytest.fixture(scope="session")
def export_artifact():
    """Makes an artifact of a module of the test's own."""
    return write_exported_artifact


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory):
    """A folder of runs whose run `tiny` has one artifact, `fp32`: a classifier of four numbers into three classes."""
    import torch

    from emberline.models.mlp import mlp

    runs = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    preprocessing = {"inputs": [{"name": "x", "shape": [4], "minimum": -10, "maximum": 10}]}
    write_exported_artifact(
        runs / "tiny" / "artifacts" / "fp32", mlp(4, 3, hidden=(8,)), preprocessing, {"x": [1, -2, 3, 4]}, "abc"
    )
    return runs
