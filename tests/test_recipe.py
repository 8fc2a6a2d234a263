"""Recipes are typed, and what is wrong in one is named."""

from pathlib import Path

import pytest

from emberline.errors import InvalidSetting, MissingFile, UnknownKey
from emberline.recipe import load_recipe

RECIPE = Path(__file__).parents[1] / "recipes/digits.yaml"


def test_the_shipped_recipe_loads_and_its_digest_is_stable() -> None:
    assert load_recipe(RECIPE).digest == load_recipe(RECIPE).digest


def test_a_setting_changes_the_recipe_and_its_digest() -> None:
    changed = load_recipe(RECIPE, ["train.epochs=3", "compress.artifacts.int8.stages.0.ratio=0.25"])
    assert changed.train.epochs == 3
    assert changed.compress is not None
    assert changed.compress.artifacts["int8"].stages[0].ratio == 0.25  # type: ignore[union-attr]
    assert changed.digest != load_recipe(RECIPE).digest


@pytest.mark.parametrize(
    ("setting", "key", "near"),
    [
        ("train.epoch=3", "train.epoch", "'epochs'"),
        ("trian.epochs=3", "trian", "'train'"),
        ("train.optimizer.lerning_rate=1", "train.optimizer.lerning_rate", "'learning_rate'"),
        ("serve.worker=3", "serve.worker", "'workers'"),
        ("compress.artifacts.int8.gates.min_speedupp=1", "compress.artifacts.int8.gates.min_speedupp", "'min_speedup'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(setting: str, key: str, near: str) -> None:
    with pytest.raises(UnknownKey) as caught:
        load_recipe(RECIPE, [setting])
    assert caught.value.key == key
    assert near in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("train.epochs=many", "train.epochs"),
        ("train.epochs=0", "train.epochs"),
        ("run=Not A Name", "run"),
        ("model.factory=nofunction", "model.factory"),
        ("compress.artifacts.int8.stages.0.ratio=1.5", "ratio"),
        ("train.batch_size=63", "train"),
        ("compress.baseline=nosuch", "compress"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(setting: str, key: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load_recipe(RECIPE, [setting])
    assert key in caught.value.key
    assert str(RECIPE) in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["train.epochs", "=3", "train.epochs=[1", "compress.artifacts.int8.stages.9.ratio=0.1", "run.x=1"]
)
def test_a_setting_that_cannot_be_laid_over_is_refused(setting: str) -> None:
    with pytest.raises(InvalidSetting):
        load_recipe(RECIPE, [setting])


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"nosuch\.yaml"):
        load_recipe(tmp_path / "nosuch.yaml")


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [\n", "\xff\xfe", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidSetting, match=r"bad\.yaml"):
        load_recipe(path)


def test_yaml_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("run: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InvalidSetting):
        load_recipe(path)
