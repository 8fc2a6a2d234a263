"""Training in this process: the same code, so also the place to see its errors."""

import numpy as np
import pytest
import torch

from emberline.data import Splits, load, rows_from_arrays
from emberline.errors import EmberlineError, InvalidSetting
from emberline.models import create
from emberline.recipe import Model, Recipe, load_recipe
from emberline.train.finetune import finetune


@pytest.fixture
def recipe(toy, monkeypatch) -> Recipe:
    monkeypatch.syspath_prepend(str(toy.folder))
    monkeypatch.delitem(__import__("sys").modules, "toy", raising=False)
    monkeypatch.setenv("RANK", "0")
    return load_recipe(toy.folder / "toy.yaml")


def weights(model: torch.nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in model.state_dict().values()]


def process_settings() -> tuple[int, int, bool]:
    fills = torch.utils.deterministic.fill_uninitialized_memory
    return torch.get_num_threads(), torch.get_deterministic_debug_mode(), fills


def test_it_is_the_same_each_time_and_leaves_the_processs_settings_alone(recipe):
    splits = load(recipe.data, None)
    before = process_settings()
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        model = create(recipe.model)
        progress: list[int] = []
        done = finetune(
            model,
            recipe,
            splits,
            epochs=2,
            learning_rate=0.01,
            progress=lambda step, *_, seen=progress: seen.append(step),
        )
        assert progress == list(range(1, 9))
        assert done.steps == 8
        assert not model.training
        results.append((weights(model), done.loss, done.value))
    assert results[0] == results[1]
    assert process_settings() == before


def test_a_failing_forward_names_rank_step_and_layer(recipe):
    model = create(Model(factory="toy:net", arguments={"broken": True}))
    with pytest.raises(EmberlineError, match=r"rank 0, step 0: layer 4 \(Linear\) failed: mat1 and mat2 shapes"):
        finetune(model, recipe, load(recipe.data, None), epochs=1, learning_rate=0.01)


def test_zero_rows_and_labels_out_of_range_are_refused_before_the_first_step(recipe):
    good = rows_from_arrays("x", np.zeros((4, 6)), [0, 1, 2, 0])
    none, bad = good.take([]), rows_from_arrays("x", np.zeros((2, 6)), [0, 9])
    model = create(recipe.model)
    before = weights(model)
    with pytest.raises(EmberlineError, match="split 'train' has zero rows"):
        finetune(model, recipe, Splits(none, good, good), epochs=1, learning_rate=0.01)
    with pytest.raises(InvalidSetting, match="split 'train': label of row 1 is 9; 0 to 2"):
        finetune(model, recipe, Splits(bad, good, good), epochs=1, learning_rate=0.01)
    assert weights(model) == before


def test_a_diverging_training_is_stopped_before_the_weights_are_lost(recipe):
    model = create(recipe.model)
    with pytest.raises(EmberlineError, match=r"the (loss|gradients' norm) is (nan|inf); a finite number is required"):
        finetune(model, recipe, load(recipe.data, None), epochs=20, learning_rate=1e30)
    assert all(torch.isfinite(value).all() for value in model.parameters())
