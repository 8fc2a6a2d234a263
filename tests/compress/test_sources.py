"""A step is done again when the user's code or rows that it depends on changed, and not otherwise."""

import pytest

from emberline.artifact import Artifact, Package
from emberline.compress import measuring, sources
from emberline.compress.plan import training_reads
from emberline.recipe import Compress, Recipe, parse_model

FILES = {
    "net.py": "from layers import Block\nfrom parts.norm import Norm\nimport torch\n",
    "layers.py": "import deep\n",
    "deep.py": "import net  # a circle\n",
    "parts/__init__.py": "",
    "parts/norm.py": "from . import scale\nfrom .shift import by\n",
    "parts/scale.py": "",
    "parts/shift.py": "by = 1\n",
    "other.py": "",
}

RECIPE = {
    "run": "test",
    "model": {"factory": "m:f"},
    "data": {"source": "m:f"},
    "preprocessing": {"inputs": [{"name": "x", "shape": [4]}]},
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", sorted(set(FILES) - {"other.py"}))
def test_code_is_the_module_and_all_it_imports_beside_the_recipe(folder, name):
    before = sources.code_digest(["net:make"], folder)
    (folder / name).write_text(FILES[name] + "x = 2\n")
    assert sources.code_digest(["net:make"], folder) != before


def test_a_module_that_nothing_imports_changes_nothing(folder):
    before = sources.code_digest(["net:make", None], folder)
    (folder / "other.py").write_text("x = 2\n")
    assert sources.code_digest(["net:make"], folder) == before


def test_a_module_that_cannot_be_read_is_left_to_who_imports_it(folder):
    (folder / "layers.py").write_text("def (")
    assert sources.code_digest(["net:make", "absent:make"], folder)


@pytest.mark.parametrize("key", ["loss", "augment"])
def test_a_changed_body_of_the_users_loss_or_augmentation_is_another_training(folder, key):
    recipe = parse_model(Recipe, {**RECIPE, "train": {key: "other:function"}}, "test")
    before = training_reads(recipe, folder)
    (folder / "other.py").write_text("def function(): return 2\n")
    assert training_reads(recipe, folder) != before


def test_rows_are_the_files_that_a_sources_arguments_name(tmp_path):
    (tmp_path / "a-1.parquet").write_bytes(b"one")
    arguments = {"train": str(tmp_path / "a-*.parquet"), "columns": {"label": "y"}, "limit": 3}
    before = sources.rows_digest(arguments)
    (tmp_path / "b.parquet").write_bytes(b"not named")
    assert sources.rows_digest(arguments) == before
    (tmp_path / "a-1.parquet").write_bytes(b"two")
    changed = sources.rows_digest(arguments)
    (tmp_path / "a-2.parquet").write_bytes(b"three")
    assert len({before, changed, sources.rows_digest(arguments)}) == 3


def test_large_files_of_rows_are_known_by_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_WHOLE_BYTES", 2)
    path = tmp_path / "large.parquet"
    path.write_bytes(b"one")
    before = sources.rows_digest([str(path)])
    assert sources.rows_digest([str(path)]) == before
    path.write_bytes(b"four")
    assert sources.rows_digest([str(path)]) != before


def test_equal_packages_made_of_other_rows_are_measured_anew(tmp_path):
    recipe = parse_model(Recipe, RECIPE, "test")
    package = Package(file="a.pt2", backend="aoti", precision="fp32", max_batch=8, torch="2.13.0")
    artifact = Artifact(
        model=recipe.model, weights="w", preprocessing=recipe.preprocessing, labels=(), packages=(package,)
    )
    settings = parse_model(Compress, {"artifacts": {"fp32": {"stages": [{"stage": "export"}]}}}, "test")
    keys = set()
    for name in ("export-1", "export-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.pt2").write_bytes(b"the same")
        keys.add(measuring._key({"fp32": (tmp_path / name, artifact)}, settings))
    assert len(keys) == 2
