"""Which rows a step reads."""

import numpy as np
import pytest

from emberline.data import Splits, order, rows_from_arrays
from emberline.errors import EmberlineError, InvalidSetting
from emberline.recipe import Input, Preprocessing, load_recipe
from emberline.train.batches import Batches, Plan, check_rows

PREPROCESSING = Preprocessing(inputs=(Input(name="x", shape=(1,), minimum=0),))


def batches(num_rows: int, batch_size: int, num_shards: int, labels: int = 3, values=None) -> Batches:
    x = np.arange(num_rows, dtype=np.float32)[:, None] if values is None else values
    rows = rows_from_arrays("x", x, np.arange(num_rows) % 3)
    return Batches(rows, Plan(7, num_rows, 2, batch_size, num_shards), PREPROCESSING, labels, "here")


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "num_shards"),
    [(77, 24, 6), (73, 24, 6), (1, 24, 6), (24, 24, 6), (25, 24, 6), (5, 4, 4), (9, 4, 1), (100, 1, 1), (29, 24, 6)],
)
def test_an_epoch_reads_each_row_exactly_once_in_the_epochs_order(num_rows, batch_size, num_shards):
    source = batches(num_rows, batch_size, num_shards)
    plan = source.plan
    for epoch in range(2):
        read = []
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            for shard in range(num_shards):
                bounds = plan.shard_bounds(step, shard)
                if bounds[0] < bounds[1]:
                    read += source.part(step, bounds)[0][0][:, 0].int().tolist()
        assert read == order(7, epoch, num_rows).tolist()


def test_no_shard_of_a_batch_norm_net_has_a_lone_row():
    for num_rows in range(25, 200):
        plan = Plan(0, num_rows, 1, 24, 6)
        bounds = [plan.shard_bounds(step, shard) for step in range(plan.total_steps) for shard in range(6)]
        assert 1 not in {high - low for low, high in bounds}


def test_a_label_out_of_range_is_named_with_its_rows():
    with pytest.raises(InvalidSetting, match="here: label of row 2 is 2; 0 to 1, an index into the recipe's labels"):
        batches(3, 3, 1, labels=2).read(np.array([0, 1, 2]))


def test_a_row_that_preprocessing_refuses_is_named():
    values = np.array([[0.0], [-1.0]], np.float32)
    with pytest.raises(EmberlineError, match="here, row 1: x: value -1 is below the minimum 0"):
        batches(2, 2, 1, values=values).read(np.array([0, 1]))


def test_a_nan_in_a_split_is_named_with_source_split_and_row_before_a_run_is_made(toy):
    recipe = load_recipe(toy.folder / "toy.yaml")
    bad = np.zeros((9, 6), np.float32)
    bad[7, 2] = np.nan
    good, bad = (rows_from_arrays("x", values, np.zeros(9, int)) for values in (np.zeros((9, 6)), bad))
    check_rows(Splits(good, good, good), recipe)
    with pytest.raises(EmberlineError, match="toy:data, split 'validation', row 7: x: NaN"):
        check_rows(Splits(good, bad, good), recipe)
    short = rows_from_arrays("x", np.zeros((9, 5)), np.zeros(9, int))
    with pytest.raises(EmberlineError, match=r"toy:data, split 'train', row 0: x: shape is \[5\]; \[6\] is required"):
        check_rows(Splits(short, good, good), recipe)


def test_rows_that_draw_random_numbers_are_refused_before_a_run_is_made(toy):
    recipe = load_recipe(toy.folder / "toy.yaml")

    class Noisy:
        def __len__(self):
            return 9

        def __getitem__(self, _index):
            return {"x": np.random.normal(size=6)}, 0  # noqa: NPY002 - as user code does

    with pytest.raises(EmberlineError, match="toy:data, split 'train': reading a row draws random numbers\nhint: "):
        check_rows(Splits(Noisy(), Noisy(), Noisy()), recipe)


@pytest.mark.parametrize(("padding", "tokens"), [("batch", [20, 12]), ("length", [32, 32])])
def test_a_shards_texts_are_as_long_as_its_longest_or_as_the_recipe_says(padding, tokens):
    lengths = (20, 3, 12, 9)
    rows = [({"text": "x" * length}, 0) for length in lengths]
    text = Input(name="text", kind="text", length=32, tokenizer="bytes", padding=padding)
    source = Batches(rows, Plan(7, 4, 1, 4, 2), Preprocessing(inputs=(text,)), 1, "here")
    shards = [source.read(np.array(indices))[0][0] for indices in ((0, 1), (2, 3))]
    assert [ids.shape[1] for ids in shards] == tokens
    assert [int(row) for ids in shards for row in (ids != 0).sum(1)] == list(lengths)
