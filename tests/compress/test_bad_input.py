"""What a model or data that cannot be compressed is told, before anything is spent on it."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from emberline.compress.chain import run_chain
from emberline.compress.context import prepare
from emberline.compress.job import open_job
from emberline.compress.plan import Step
from emberline.compress.program import require_usable
from emberline.compress.stages.quantize import quantize
from emberline.compress.state import State
from emberline.data import Splits, rows_from_arrays
from emberline.errors import EmberlineError, InvalidSetting, StageFailed
from emberline.models.digits import digits_cnn
from emberline.recipe import Prune, Quantize
from emberline.runlog import RunLog


class Recurrent(nn.Module):
    """An LSTM over the rows of a picture."""

    def __init__(self, classes):
        super().__init__()
        self.memory = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, classes) if classes else None

    def forward(self, x):
        last = self.memory(x[:, 0])[0][:, -1]
        return self.head(last) if self.head else last


@pytest.mark.parametrize("stages", ["[]", "[{stage: prune}]"])
def test_stages_without_an_export_are_refused_before_the_model_is_looked_for(root, tmp_path, stages):
    with pytest.raises(InvalidSetting, match=r"artifacts\.int8: stages is .*; one export stage, as the last one, is"):
        open_job(root / "recipes/digits.yaml", (f"compress.artifacts.int8.stages={stages}",), tmp_path)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["model.arguments.width=32"], r"model.arguments.width is 32; 16, as it was trained, is required"),
        (["model.arguments={}"], r"model.arguments.width is not given; 16, as it was trained, is required"),
        (["model.arguments.depth=2"], r"model.arguments.depth is 2; none, as it was trained, is required"),
        (["model.factory=emberline.models.mlp:mlp"], "model.factory is 'emberline.models.mlp:mlp'"),
        (["labels=[even, odd]"], "labels is .*; 10 labels, as it was trained with, is required"),
    ],
)
def test_another_model_than_was_trained_is_refused_with_what_differs(trained_run, settings, text):
    with pytest.raises(InvalidSetting, match=text) as error:
        open_job(trained_run.recipe_path, settings, trained_run.runs)
    assert "the settings that it was trained with" in error.value.hint


def test_rows_prepared_otherwise_than_in_training_are_warned_of(trained_run, capsys):
    open_job(trained_run.recipe_path, ["preprocessing.steps.0.by=0.03125"], trained_run.runs)
    assert "preprocessing is not that of the training" in capsys.readouterr().err
    open_job(trained_run.recipe_path, (), trained_run.runs)
    assert "preprocessing" not in capsys.readouterr().err


def test_a_model_with_other_outputs_than_labels_is_refused_before_any_stage(trained_run, tmp_path):
    def run():
        return run_chain(
            "int8",
            steps=[Step("prune", Prune(stage="prune", ratio=0.5), "a" * 64)],
            cache=tmp_path / "cache",
            log=RunLog(),
            make_context=trained_run.context,
            first_state=lambda: State(digits_cnn(8, num_classes=7)),
        )

    with pytest.raises(
        InvalidSetting, match=r"\[2, 7\]; \[2, 10\], a score for each of the recipe's 10 labels"
    ) as error:
        run()
    assert "name every class in `labels`" in error.value.hint
    assert not (tmp_path / "cache").exists()


def test_an_input_of_another_shape_than_the_model_takes_names_layer_and_fields(trained_run):
    model = nn.Sequential(nn.Flatten(), nn.Linear(65, 10))
    with pytest.raises(StageFailed, match=r"layer 1 \(Linear\) fails in forward") as error:
        require_usable(model, trained_run.context())
    assert "preprocessing.inputs and preprocessing.steps" in error.value.hint


def test_a_layer_that_has_no_int8_kernel_is_named_and_stays(trained_run, capfd):
    state = quantize(
        State(Recurrent(10).eval()), Quantize(stage="quantize", calibration_rows=32), trained_run.context()
    )
    assert state.note["float_layers"] == ["memory (LSTM)"]
    assert "memory (LSTM) stay in floating point: no int8 kernel" in capfd.readouterr().err


def test_a_model_of_such_layers_alone_is_told_what_would_take_them(trained_run):
    with pytest.raises(StageFailed, match="no convolution or linear layer to quantize") as error:
        quantize(State(Recurrent(0).eval()), Quantize(stage="quantize", calibration_rows=32), trained_run.context())
    assert "memory (LSTM)" in error.value.hint
    assert "bf16" in error.value.hint


def test_a_layer_that_torchao_does_not_take_is_named_with_the_key_that_leaves_it_out(trained_run):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Linear(1, 10)).eval()
    with pytest.raises(StageFailed, match=r"layer 2 \(Linear.* cannot be made int8") as error:
        quantize(State(model), Quantize(stage="quantize", precision="int8_dynamic"), trained_run.context())
    assert "skip_layers: [2]" in error.value.hint


def test_what_a_library_raises_becomes_a_line_that_names_the_layer_and_leaves_the_traceback_in_the_log(
    trained_run, tmp_path
):
    with pytest.raises(StageFailed, match=r"layer memory \(LSTM\) cannot be worked on: IndexError") as error:
        run_chain(
            "int8",
            steps=[Step("prune", Prune(stage="prune", ratio=0.5, round_to=1), "b" * 64)],
            cache=tmp_path / "cache",
            log=RunLog(),
            make_context=lambda: replace(trained_run.context(), log=RunLog(tmp_path / "log.jsonl")),
            first_state=lambda: State(Recurrent(10).eval()),
        )
    assert "name it in ignored_layers" in error.value.hint
    assert "torch_pruning" in (tmp_path / "log.jsonl").read_text()


def test_no_rows_to_calibrate_with_are_refused_by_the_name_of_the_split(trained_run, monkeypatch):
    rows = rows_from_arrays("pixels", np.zeros((4, 8, 8), np.float32), [0, 1, 2, 3])
    monkeypatch.setattr("emberline.data.source.load", lambda *_: Splits(rows.take([]), rows, rows))
    with pytest.raises(EmberlineError, match="split 'train' has zero rows"):
        quantize(State(digits_cnn(8).eval()), Quantize(stage="quantize"), trained_run.context())


def test_labels_out_of_range_are_refused_by_row(trained_run, monkeypatch):
    rows = rows_from_arrays("pixels", np.zeros((4, 8, 8), np.float32), [0, 1, 12, 3])
    monkeypatch.setattr("emberline.data.source.load", lambda *_: Splits(rows, rows, rows))
    with pytest.raises(InvalidSetting, match="label of row 2 is 12; 0 to 9"):
        quantize(State(digits_cnn(8).eval()), Quantize(stage="quantize"), trained_run.context())


def test_a_row_that_does_not_fit_is_told_with_where_it_is_kept(trained_run):
    class Kept(list):
        def place(self, index):
            return f"digits.parquet, row group 0, row {index} of it"

    rows = Kept([({"pixels": np.zeros((8, 8), np.float32)}, 0), ({"pixels": np.zeros((8, 9), np.float32)}, 0)])
    with pytest.raises(EmberlineError, match=r"shape is \[8, 9\]") as error:
        prepare(trained_run.recipe, rows, [0, 1])
    assert error.value.place == "row 1 (digits.parquet, row group 0, row 1 of it) of emberline.data.digits:digits"
