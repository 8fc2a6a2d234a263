"""Pruning in all its ways, and what later stages make of it."""

import copy

import pytest
import torch
from torch import nn

from emberline.compress.masks import two_of_four
from emberline.compress.stages.finetune import finetune
from emberline.compress.stages.prune import prune
from emberline.compress.state import State, read_state, write_state
from emberline.compress.widths import _interleaved
from emberline.errors import InvalidSetting, StageFailed
from emberline.models.digits import digits_cnn
from emberline.recipe import Finetune, Prune, load_recipe


def zeros(state):
    return {name: int((state.model.get_submodule(name).weight == 0).sum()) for name in state.masked}


class TwoHeads(nn.Module):
    """Answers twice; the first answer is not made by the layer that runs last."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.first, self.second = nn.Linear(16, 10), nn.Linear(16, 4)

    def forward(self, x):
        features = self.body(x)
        return self.first(features), self.second(features)


def test_magnitude_pruning_zeroes_the_smallest_half_of_all_weights(trained_run):
    model = digits_cnn(8)
    weights = torch.cat([layer.weight.detach().abs().flatten() for layer in model.modules() if has_matrix(layer)])
    state = prune(State(copy.deepcopy(model)), Prune(stage="prune", method="magnitude"), trained_run.context())
    left = torch.cat([layer.weight.detach().flatten() for layer in state.model.modules() if has_matrix(layer)])
    assert (left == 0).sum() == len(weights) // 2
    assert left[left != 0].abs().min() >= weights.median()
    assert state.note["sparsity"] == 0.5


def has_matrix(layer):
    return isinstance(layer, nn.Conv2d | nn.Linear)


def test_two_of_every_four_inputs_are_left_and_the_larger_ones(trained_run):
    mask = two_of_four(torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.0, 0.5, -0.1, 0.2]]))
    assert mask.tolist() == [[0, 1, 1, 0, 0, 1, 0, 1]]
    state = prune(State(digits_cnn(8)), Prune(stage="prune", method="2:4"), trained_run.context())
    assert state.masked == ("features.3", "features.7", "classifier")
    assert state.note["left_dense"] == ["features.0"]
    for name in state.masked:
        groups = state.model.get_submodule(name).weight.reshape(-1, 4)
        assert ((groups == 0).sum(1) == 2).all()


def test_zeros_outlast_finetuning_and_the_disk(trained_run, tmp_path):
    context = trained_run.context()
    state = prune(State(digits_cnn(8)), Prune(stage="prune", method="magnitude", ratio=0.7), context)
    before = zeros(state)
    write_state(state, tmp_path / "state")
    recipe = load_recipe(trained_run.recipe_path, ["model.arguments.width=8"])
    again = finetune(read_state(tmp_path / "state", recipe, None), Finetune(stage="finetune", epochs=1), context)
    assert zeros(again) == before
    assert not any(name.endswith("_orig") for name, _ in again.model.named_parameters())


@pytest.mark.parametrize("first", ["magnitude", "2:4"])
def test_zeros_outlast_a_second_pruning_and_what_is_trained_after_it(trained_run, first):
    context = trained_run.context()
    second = Prune(stage="prune", method="2:4" if first == "magnitude" else "magnitude", ignored_layers=("classifier",))
    state = prune(State(digits_cnn(8)), Prune(stage="prune", method=first), context)
    state = prune(state, second, context)
    assert "classifier" in state.masked
    before = zeros(state)
    assert zeros(finetune(state, Finetune(stage="finetune", epochs=1), context)) == before


@pytest.mark.long
def test_zeros_outlast_movement_pruning_and_count_in_its_share(trained_run):
    context = trained_run.context()
    state = prune(State(digits_cnn(8)), Prune(stage="prune", method="magnitude", ratio=0.5), context)
    before = {name: state.model.get_submodule(name).weight == 0 for name in state.masked}
    settings = Prune(stage="prune", method="movement", ratio=0.6, epochs=1, ignored_layers=("features.0",))
    after = prune(state, settings, context)
    assert all((after.model.get_submodule(name).weight[held] == 0).all() for name, held in before.items())
    assert after.note["sparsity"] == pytest.approx(0.6, abs=0.02)


@pytest.mark.long
def test_movement_pruning_ends_with_the_share_asked_for(trained_run):
    settings = Prune(stage="prune", method="movement", ratio=0.6, epochs=1)
    state = prune(State(digits_cnn(8)), settings, trained_run.context())
    assert state.note["sparsity"] == pytest.approx(0.6, abs=1e-3)
    assert sum(zeros(state).values()) == state.note["zeros"]


@pytest.mark.long
def test_the_multiple_of_widths_can_be_found_by_timing(trained_run, tmp_path):
    context = trained_run.context()
    context.scratch = tmp_path
    state = prune(State(digits_cnn(24)), Prune(stage="prune", ratio=0.4, round_to="measured"), context)
    assert state.note["round_to"] in (1, 4, 8, 16)
    assert set(state.note["measured"]) <= {"1", "4", "8", "16"}
    assert all(one["ms"] > 0 for one in state.note["measured"].values())


def test_widths_are_timed_with_as_many_threads_as_asked_for_and_those_before_come_back():
    before, seen = torch.get_num_threads(), set()
    _interleaved({8: lambda: seen.add(torch.get_num_threads())}, before + 1)
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


def test_both_answers_of_a_net_keep_their_width(trained_run):
    state = prune(State(TwoHeads()), Prune(stage="prune", ratio=0.5), trained_run.context())
    assert (state.model.first.out_features, state.model.second.out_features) == (10, 4)
    assert state.note["widths"] == {"body.0": "16 → 8"}


def test_a_pattern_leaves_several_layers_out(trained_run):
    settings = Prune(stage="prune", ratio=0.5, round_to=4, ignored_layers=("features.[03]",))
    state = prune(State(digits_cnn(8)), settings, trained_run.context())
    assert state.model.features[0].out_channels == state.model.features[3].out_channels == 8
    assert state.model.features[7].out_channels == 8


@pytest.mark.parametrize("method", ["magnitude", "2:4"])
def test_an_ignored_parent_keeps_the_weights_of_all_its_layers(trained_run, method):
    settings = Prune(stage="prune", method=method, ignored_layers=("features",))
    state = prune(State(digits_cnn(8)), settings, trained_run.context())
    assert state.masked == ("classifier",)
    assert all((layer.weight != 0).all() for layer in state.model.features if has_matrix(layer))


def test_layers_that_are_all_ignored_leave_no_zeros_to_set(trained_run):
    settings = Prune(stage="prune", method="magnitude", ignored_layers=("*",))
    with pytest.raises(StageFailed, match="found no layer"):
        prune(State(digits_cnn(8)), settings, trained_run.context())


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("{stage: prune, method: magnitude, round_to: 4}", "round_to does nothing with method magnitude"),
        ("{stage: prune, method: '2:4', ratio: 0.3}", "ratio does nothing with method 2:4"),
        ("{stage: prune, epochs: 3}", "epochs does nothing with method structured"),
        ("{stage: prune, round_to: 0}", "round_to is 0"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(trained_run, setting, text):
    with pytest.raises(InvalidSetting, match=text):
        load_recipe(trained_run.recipe_path, [f"compress.artifacts.int8.stages.0={setting}"])
