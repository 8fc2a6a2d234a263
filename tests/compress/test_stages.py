"""Stages one at a time, and what they say of models they cannot work on."""

import numpy as np
import pytest
import torch
from torch import nn

from emberline.compress.backends import onnx
from emberline.compress.chain import STATE, run_chain, tidy
from emberline.compress.plan import Step
from emberline.compress.program import trace
from emberline.compress.stages.batch_norm import re_estimate
from emberline.compress.stages.prune import count_parameters, prune
from emberline.compress.stages.quantize import quantize
from emberline.compress.state import State, read_state
from emberline.errors import InvalidSetting, StageFailed
from emberline.models.digits import digits_cnn
from emberline.recipe import Prune, Quantize
from emberline.runlog import RunLog


class DecidesByData(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class FixesItsBatch(nn.Module):
    def forward(self, x):
        return x.view(8, 64)


def with_head(layer):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), layer, nn.Flatten(), nn.Linear(256, 10))


def test_a_model_that_decides_by_its_data_is_told_which_layer_and_what_instead(trained_run):
    with pytest.raises(StageFailed, match=r"layer 1 \(DecidesByData\) decides by the values of its data") as failed:
        trace(with_head(DecidesByData()), trained_run.context(), stage="export")
    assert "torch.where" in failed.value.hint


def test_a_model_that_fixes_its_batch_size_is_told_so(trained_run):
    with pytest.raises(StageFailed, match="takes only some batch sizes"):
        trace(nn.Sequential(FixesItsBatch(), nn.Linear(64, 10)), trained_run.context(), stage="export")


def test_a_model_that_fails_in_forward_is_told_the_layer(trained_run):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(99, 10))
    with pytest.raises(StageFailed, match=r"layer 2 \(Linear\) fails in forward with RuntimeError") as failed:
        trace(model, trained_run.context(), stage="export")
    assert "[8, 1, 8, 8]" in failed.value.hint


def test_a_traced_program_takes_every_batch_size_up_to_its_largest(trained_run):
    program = trace(digits_cnn(8), trained_run.context(), stage="export").module()
    for rows in (1, 2, 7, 8):
        assert program(torch.zeros(rows, 1, 8, 8)).shape == (rows, 10)


def test_pruning_keeps_the_outputs_and_takes_half_of_the_channels(trained_run):
    state = prune(State(digits_cnn(16)), Prune(stage="prune", ratio=0.5, round_to=4), trained_run.context())
    assert state.model.features[0].out_channels == 8
    assert state.model.classifier.out_features == 10
    assert count_parameters(state.model) < state.note["parameters_before"]


def test_pruning_that_can_remove_nothing_fails(trained_run):
    settings = Prune(stage="prune", ratio=0.5, ignored_layers=("features.0", "features.3", "features.7"))
    with pytest.raises(StageFailed, match="removed no channel"):
        prune(State(digits_cnn(8)), settings, trained_run.context())


def test_an_ignored_layer_that_is_not_there_is_refused_with_the_nearest(trained_run):
    settings = Prune(stage="prune", ratio=0.5, ignored_layers=("features.99",))
    with pytest.raises(InvalidSetting, match=r"did you mean 'features.9'"):
        prune(State(digits_cnn(8)), settings, trained_run.context())


def test_batch_norms_get_the_statistics_of_the_training_rows(trained_run):
    context = trained_run.context()
    model = digits_cnn(8)
    state = re_estimate(State(model), None, context)
    with torch.no_grad():
        outputs = model.features[0](torch.from_numpy(context.training_rows(1280)[0]))
    np.testing.assert_allclose(model.features[1].running_mean, outputs.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert model.features[1].momentum == 0.1
    assert not model.training
    assert state.note["batch_norms"] == 3


def test_a_model_with_nothing_to_quantize_is_refused(trained_run):
    with pytest.raises(StageFailed, match="no convolution or linear layer"):
        quantize(State(nn.Flatten()), Quantize(stage="quantize"), trained_run.context())


def test_quantization_covers_every_layer_and_stays_close(trained_run):
    context = trained_run.context()
    state = quantize(State(digits_cnn(8).eval()), Quantize(stage="quantize"), context)
    assert len(state.note["int8_layers"]) == 4
    example = context.example(8)
    with torch.no_grad():
        expected, got = state.model(*example), state.quantized.module()(*example)
    assert torch.norm(got - expected) < 0.1 * torch.norm(expected)


def test_onnx_runtime_makes_int8_where_nothing_can_be_compiled(trained_run, tmp_path):
    pytest.importorskip("onnxruntime")
    context = trained_run.context()
    state = quantize(State(digits_cnn(8).eval()), Quantize(stage="quantize", calibration_rows=64), context)
    program = trace(state.model, context, stage="export")
    package = onnx.convert_package(state, program, tmp_path, 8, context)
    assert (package.backend, package.precision, package.int8_kernels) == ("onnx", "int8", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


def test_an_interrupted_chain_goes_on_after_its_last_finished_stage(trained_run, tmp_path, capfd):
    steps = [
        Step("prune", Prune(stage="prune", ratio=0.5, round_to=4), "a" * 64),
        Step("batch_norm", None, "b" * 64),
        Step("quantize", Quantize(stage="quantize", calibration_rows=64), "c" * 64),
    ]
    made = []

    def first_state():
        made.append(1)
        return State(digits_cnn(16).eval())

    def run(count):
        return run_chain(
            "int8",
            steps=steps[:count],
            cache=tmp_path,
            log=RunLog(),
            make_context=trained_run.context,
            first_state=first_state,
        )

    run(2)
    half_written = tmp_path / "quantize-cc.99999999.partial"
    half_written.mkdir()
    tidy(tmp_path)
    assert not half_written.exists()
    done = run(3)
    assert [one.cached for one in done] == [True, True, False]
    assert made == [1]
    assert "int8: prune, batch_norm unchanged, reused" in capfd.readouterr().err
    state = read_state(done[-1].folder, trained_run.recipe, None)
    assert state.quantized is not None
    assert (done[-1].folder / STATE).is_file()
