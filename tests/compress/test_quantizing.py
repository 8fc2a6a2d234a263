"""Programs in fewer bits: what is int8 in them, what stays, how near they answer."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from emberline.compress.aware import First, _control, _trained_aware, take_weights
from emberline.compress.embeddings import with_int8_tables
from emberline.compress.sensitivity import sensitivity
from emberline.compress.smooth import smoothed
from emberline.compress.stages.prune import prune
from emberline.compress.stages.quantize import quantize
from emberline.compress.state import State, read_state, write_state
from emberline.compress.static_int8 import Int8
from emberline.errors import InvalidSetting, StageFailed
from emberline.models.digits import digits_cnn
from emberline.models.encoder import encoder
from emberline.recipe import AwareTraining, Prune, Quantize, load_recipe


def distance(state, example):
    with torch.no_grad():
        got, expected = state.quantized.module()(*example), state.model(*example)
    return float((got - expected).norm() / expected.norm())


def small_encoder():
    torch.manual_seed(0)
    return encoder(2, vocabulary=50, width=16, layers=1, heads=2, inner=32, positions=8).eval()


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.first, self.second = nn.Linear(8, 10), nn.Linear(8, 4)

    def forward(self, x):
        features = self.body(x)
        return self.first(features), self.second(features)


def test_layers_that_are_named_or_sensitive_stay_in_floating_point(trained_run):
    settings = Quantize(stage="quantize", skip_layers=("features.3",), skip_sensitive=1, calibration_rows=64)
    state = quantize(State(digits_cnn(8).eval()), settings, trained_run.context())
    most = next(name for name in state.note["sensitivity"] if name != "features.3")
    assert state.note["float_layers"] == ["features.3", most]
    assert set(state.int8_layers) == {"features.0", "features.3", "features.7", "classifier"} - {"features.3", most}


def test_the_layer_that_rounding_hurts_is_found():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[1].weight[:, 0] *= 1000  # one input's weights so large that the others' are rounded away
        model[0].weight[0] *= 1e-4
    before = [parameter.clone() for parameter in model.parameters()]
    ranks = sensitivity(model, ["0", "1", "2"], (torch.randn(32, 8),))
    assert next(iter(ranks)) == "1"
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_and_takes_any_batch(trained_run, precision):
    context = trained_run.context()
    state = quantize(State(digits_cnn(8).eval()), Quantize(stage="quantize", precision=precision), context)
    assert state.precision == precision
    assert distance(state, context.example(8)) < 0.02
    with torch.no_grad():
        assert state.quantized.module()(*context.example(3)).dtype == torch.float32


def test_dynamic_int8_answers_a_row_alike_in_any_company(trained_run, tmp_path):
    context = trained_run.context()
    recipe = load_recipe(trained_run.recipe_path, ["model.arguments.width=8"])
    state = quantize(State(digits_cnn(8).eval()), Quantize(stage="quantize", precision="int8_dynamic"), context)
    assert state.int8_layers == ("classifier",)
    write_state(state, tmp_path / "state")
    program = read_state(tmp_path / "state", recipe, None).quantized.module()
    (images,) = context.example(8)
    with torch.no_grad():
        torch.testing.assert_close(program(images)[2:3], program(images[2:3]), rtol=1e-5, atol=1e-5)
    assert distance(state, (images,)) < 0.05


def test_tables_of_embeddings_become_int8_and_answer_almost_alike():
    model = small_encoder()
    changed, names = with_int8_tables(model)
    assert names == ("tokens", "positions")
    assert changed.tokens.rows.dtype == torch.int8
    ids = torch.randint(1, 50, (4, 8))
    with torch.no_grad():
        assert (changed(ids) - model(ids)).norm() < 0.02 * model(ids).norm()
        torch.testing.assert_close(changed.tokens(ids), model.tokens(ids), rtol=0, atol=0.02)
    assert isinstance(model.tokens, nn.Embedding)


def test_smoothing_changes_no_answer_and_evens_out_the_inputs():
    model, ids = small_encoder(), torch.randint(1, 50, (16, 8))
    changed, note = smoothed(model, [ids], 0.5)
    with torch.no_grad():
        torch.testing.assert_close(changed(ids), model(ids), rtol=1e-3, atol=1e-4)
    assert note == {"smoothed": 7, "smooth": 0.5}


def test_a_net_that_answers_twice_is_quantized_whole(trained_run):
    context = trained_run.context()
    state = quantize(State(TwoHeads().eval()), Quantize(stage="quantize", calibration_rows=64), context)
    assert state.int8_layers == ("body.0", "first", "second")
    with torch.no_grad():
        got, expected = state.quantized.module()(*context.example(4)), state.model(*context.example(4))
    for one, other in zip(got, expected, strict=True):
        assert (one - other).norm() < 0.1 * other.norm()


@pytest.mark.long
def test_training_aware_of_quantization_is_held_against_a_control_of_equal_cost(trained_run):
    settings = Quantize(
        stage="quantize", calibration_rows=64, aware_training={"above": -1, "epochs": 1, "learning_rate": 0.001}
    )
    context = trained_run.context()
    splits = context.splits
    context.splits = replace(splits, train=First(splits.train, 192), validation=First(splits.validation, 64))
    torch.manual_seed(0)
    model = digits_cnn(8).eval()
    state = quantize(State(model), settings, context)
    facts = state.note["aware_training"]
    assert facts["tried"]
    assert facts["control_epochs"] >= 1
    accuracies = {name: facts[name] for name in ("after_training", "aware", "control")}
    assert facts["kept"] == max(accuracies, key=lambda name: accuracies[name])
    assert distance(state, context.example(8)) < 0.2  # the float model beside it has the weights that were trained


@pytest.mark.long
def test_zeros_outlast_training_aware_of_quantization_and_its_control(trained_run):
    context, settings = trained_run.context(), AwareTraining(above=-1, epochs=1, learning_rate=0.001)
    splits = context.splits
    context.splits = replace(splits, train=First(splits.train, 192), validation=First(splits.validation, 64))
    state = prune(State(digits_cnn(8)), Prune(stage="prune", method="magnitude", ratio=0.7), context)
    before = {name: int((state.model.get_submodule(name).weight == 0).sum()) for name in state.masked}
    rows = [torch.from_numpy(array) for array in context.training_rows(64)]
    trained = {
        "aware": _trained_aware(state, state.model, settings, Int8(context, rows)),
        "control": _control(state, state.model, settings, Int8(context, rows), 1),
    }
    for one in trained.values():
        assert {name: int((one.model.get_submodule(name).weight == 0).sum()) for name in one.masked} == before


def test_weights_that_were_trained_smoothed_are_scaled_back_for_the_float_model(trained_run):
    context = trained_run.context()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    rows = [torch.from_numpy(array) for array in context.training_rows(64)]
    changed, _ = smoothed(model, rows, 0.5)
    for trained in (changed, Int8(context, rows).graph(changed)):
        taken = copy.deepcopy(model)
        with torch.no_grad():
            taken[1].weight.zero_()
            take_weights(taken, trained)
            torch.testing.assert_close(taken(*rows), model(*rows), rtol=1e-4, atol=1e-5)


def test_a_model_without_embeddings_has_none_to_quantize(trained_run):
    with pytest.raises(StageFailed, match="no embedding for int8_embeddings"):
        quantize(State(digits_cnn(8)), Quantize(stage="quantize", precision="int8_embeddings"), trained_run.context())


def test_skipping_every_layer_is_refused(trained_run):
    with pytest.raises(StageFailed, match="leave no layer of 4 to quantize"):
        quantize(State(digits_cnn(8).eval()), Quantize(stage="quantize", skip_layers=("*",)), trained_run.context())


def test_a_layer_to_skip_that_is_not_there_is_named(trained_run):
    with pytest.raises(InvalidSetting, match=r"skip_layers is 'features.99'"):
        quantize(
            State(digits_cnn(8).eval()), Quantize(stage="quantize", skip_layers=("features.99",)), trained_run.context()
        )


@pytest.mark.parametrize(("precision", "pattern"), [("int8", "features.1"), ("int8_dynamic", "features.3")])
def test_a_layer_to_skip_that_would_not_be_int8_is_refused_with_those_that_would(trained_run, precision, pattern):
    settings = Quantize(stage="quantize", precision=precision, skip_layers=(pattern,))
    with pytest.raises(InvalidSetting, match=f"skip_layers is '{pattern}'; a layer that would be int8") as error:
        quantize(State(digits_cnn(8).eval()), settings, trained_run.context())
    assert "classifier" in error.value.hint


def test_the_sensitive_layers_of_dynamic_int8_are_among_those_it_computes(trained_run):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 16), nn.Linear(16, 10)).eval()
    settings = Quantize(stage="quantize", precision="int8_dynamic", skip_sensitive=1)
    state = quantize(State(model), settings, trained_run.context())
    assert len(state.int8_layers) == 1
    assert set(state.note["sensitivity"]) == {"2", "3"}


@pytest.mark.parametrize(("precision", "second"), [("int8", "4"), ("int8_dynamic", "2")])
def test_a_layer_that_is_called_twice_promises_two_kernels(trained_run, precision, second):
    again = nn.Linear(16, 16)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), again, nn.ReLU(), again, nn.Linear(16, 10)).eval()
    state = quantize(State(model), Quantize(stage="quantize", precision=precision), trained_run.context())
    assert state.int8_layers == ("1", "2", second, "5")


def test_settings_that_a_precision_does_not_know_are_refused(trained_run):
    setting = "compress.artifacts.int8.stages.2={stage: quantize, precision: bf16, skip_sensitive: 2}"
    with pytest.raises(InvalidSetting, match="skip_sensitive does nothing with precision bf16"):
        load_recipe(trained_run.recipe_path, [setting])
