"""Recipes are typed, and what is wrong in one is named."""

from pathlib import Path

import pytest

from emberline.errors import InvalidSetting, MissingFile, UnknownKey
from emberline.recipe import Recipe, load_recipe, parse_model, read_yaml
from emberline.train.folder import RECIPE as OF_RUN
from emberline.train.folder import prepare_folder

RECIPE = Path(__file__).parents[1] / "recipes/digits.yaml"
RECIPES = [path for path in sorted(RECIPE.parent.glob("*.yaml")) if not path.name.endswith(".experiment.yaml")]


def test_the_shipped_recipe_loads_and_its_digest_is_stable() -> None:
    assert load_recipe(RECIPE).digest == load_recipe(RECIPE).digest


def test_a_setting_changes_the_recipe_and_its_digest() -> None:
    changed = load_recipe(RECIPE, ["train.epochs=3", "compress.artifacts.int8.stages.0.ratio=0.25"])
    assert changed.train.epochs == 3
    assert changed.compress is not None
    assert changed.compress.artifacts["int8"].stages[0].ratio == 0.25  # type: ignore[union-attr]
    assert changed.digest != load_recipe(RECIPE).digest


@pytest.mark.parametrize(
    ("name", "setting", "why"),
    [
        ("detection", "labels=[]", "needs an image as the first input, and labels"),
        ("detection", "preprocessing={inputs: [{name: x, shape: [3]}]}", "needs an image as the first input"),
        ("detection", "train.early_stopping={metric: accuracy}", "metric accuracy is none of task detection"),
        ("segmentation", "train.early_stopping={metric: map50}", "metric map50 is none of task segmentation"),
        ("detection", "train.augment=emberline.models.augmentation:crop_and_flip", "augment would move pictures"),
        ("segmentation", "train.augment=emberline.models.augmentation:shift_and_flip", "augment would move pictures"),
        ("detection", "train.distill={recorded: a.parquet}", "distill knows classes and rankings"),
        ("segmentation", "train.top=3", "top does nothing with task segmentation"),
        ("segmentation", "compress.search={}", "distillation and search know classes and rankings"),
        (
            "detection",
            "compress.artifacts.int8.stages=[{stage: distill, epochs: 1}, {stage: export}]",
            "distillation and search know classes and rankings",
        ),
        (
            "detection",
            "archive.cascades={quick: {version: '2.0', passes: [{artifact: int8, confidence: 0.5}, {artifact: fp32}]}}",
            "a cascade sends on rows of classes or rankings",
        ),
        ("segmentation", f"labels={[str(n) for n in range(257)]}", "a mask of one byte a pixel has at most 256"),
    ],
)
def test_what_knows_nothing_of_places_in_pictures_is_refused(name: str, setting: str, why: str) -> None:
    with pytest.raises(InvalidSetting, match=why):
        load_recipe(RECIPE.with_name(f"shapes-{name}.yaml"), [setting])


def test_each_task_has_its_own_loss_unless_one_is_named() -> None:
    paths = [RECIPE.with_name(f"{name}.yaml") for name in ("digits", "shapes-detection", "shapes-segmentation")]
    losses = [load_recipe(path).train.loss.partition(":")[2] for path in paths]
    assert losses == ["cross_entropy", "detection", "pixels"]
    assert load_recipe(paths[1], ["train.loss=mine:loss"]).train.loss == "mine:loss"


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
        ("compress.batch_sizes=[0]", "compress.batch_sizes.0"),
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


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_a_run_keeps_is_the_recipe_again(path: Path, tmp_path: Path) -> None:
    raw = read_yaml(path)["preprocessing"]["inputs"][0].get("tokenizer", "bytes")
    is_lacking = raw not in ("bytes", "words") and not (path.parent / raw).is_file()  # data that are not in this tree
    recipe = load_recipe(path, ["preprocessing.inputs.0.tokenizer=bytes"] if is_lacking else [])
    prepare_folder(tmp_path / "run", recipe, 77)
    kept = tmp_path / "run" / OF_RUN
    assert parse_model(Recipe, read_yaml(kept), kept) == recipe


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("train.epochs=3.5", "train.epochs is 3.5; a whole number is required\nhint: without it, 10 is taken"),
        ("train.batch_size=foo", "is 'foo'; a whole number or 'auto' is required\nhint: Rows of one batch over all"),
        (
            "compress.artifacts.int8.stages.0.ratio=1.5",
            "stages.0.ratio is 1.5; less than 1 is required\nhint: Fraction",
        ),
        ("model={}", "model.factory is not given; it has no default\nhint: keys there: arguments, factory"),
        ("train=3", "train is 3; a mapping of keys to values is required\nhint: its keys: task, "),
        ("a.b", "--set: setting is 'a.b'; key=value is required\nhint: such as --set train.epochs=3"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_required_and_a_hint(setting: str, text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load_recipe(RECIPE, [setting])
    assert text in str(caught.value)


def test_a_setting_is_typed_by_the_recipe_so_a_text_is_taken_as_written() -> None:
    changed = load_recipe(RECIPE, ["archive.versions.fp32=1.20", "run=no", "archive.licence=0x1F", "seed=7"])
    assert changed.archive is not None
    assert (changed.archive.versions["fp32"], changed.run, changed.archive.licence) == ("1.20", "no", "0x1F")
    assert changed.seed == 7


def test_a_key_that_is_there_twice_is_refused_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("seed: 1\ntrain:\n  epochs: 1\nseed: 2\n")
    with pytest.raises(InvalidSetting, match=r"twice\.yaml: line 4: seed is there a second time, after line 1"):
        load_recipe(path)
    path.write_text("stages:\n- {stage: export, stage: prune}\n")
    with pytest.raises(InvalidSetting, match=r"line 2: stages\.0\.stage is there a second time"):
        load_recipe(path)


def test_a_folder_and_a_file_of_another_encoding_are_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="is a folder; a YAML file is required"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"run: \xe9\n")
    with pytest.raises(InvalidSetting, match="byte 5 is no UTF-8"):
        load_recipe(tmp_path / "latin.yaml")


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
