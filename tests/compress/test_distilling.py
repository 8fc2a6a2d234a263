"""Distillation from a live and from a recorded teacher, which teach the same."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from emberline import models
from emberline.artifact import read_artifact
from emberline.compress.aware import First
from emberline.compress.context import prepare
from emberline.compress.inheriting import inherit
from emberline.compress.record import record
from emberline.compress.stages.distill import distill
from emberline.compress.state import State, read_state, write_state
from emberline.compress.teaching import DistillLoss, Lesson
from emberline.errors import InvalidCombination, InvalidSetting, MissingFile, StageFailed
from emberline.models import augmentation
from emberline.models.encoder import encoder
from emberline.recipe import Distill, Model, load_recipe
from emberline.train.recorded import read_answers

STUDENT = Model(factory="emberline.models.digits:digits_cnn", arguments={"width": 4})


def teacher_of(run):
    return models.build(run.artifacts / "trained", read_artifact(run.artifacts / "trained")[1])


@pytest.fixture(scope="module")
def recorded(trained_run, tmp_path_factory):
    target = tmp_path_factory.mktemp("recorded") / "answers.parquet"
    return record(trained_run.artifacts / "trained", recipe=trained_run.recipe_path, split="train", output=target)


def weights(state):
    return torch.cat([parameter.detach().flatten() for parameter in state.model.parameters()])


def test_a_recorded_answer_is_what_the_teacher_says_of_that_row(trained_run, recorded):
    context = trained_run.context()
    answers = read_answers(recorded, trained_run.recipe, context.splits.train)
    inputs, _ = prepare(context.recipe, context.splits.train, [0, 5])
    with torch.no_grad():
        expected = teacher_of(trained_run)(*[torch.from_numpy(one) for one in inputs])
    np.testing.assert_allclose(answers[[0, 5]], expected, rtol=1e-4, atol=1e-5)
    assert pq.read_table(recorded).column("row").to_pylist()[:3] == [0, 1, 2]


def test_live_and_recorded_teachers_make_the_same_student_of_another_net(trained_run, recorded, tmp_path):
    context = trained_run.context()
    context.trained = lambda: teacher_of(trained_run)
    settings = {"stage": "distill", "epochs": 1, "student": STUDENT, "learning_rate": 0.005}
    live = distill(State(digits_cnn_of(trained_run)), Distill(**settings), context)
    taught = distill(State(digits_cnn_of(trained_run)), Distill(**settings, recorded=str(recorded)), context)
    torch.testing.assert_close(weights(live), weights(taught), rtol=1e-3, atol=1e-4)
    assert live.factory == STUDENT
    write_state(live, tmp_path / "state")
    again = read_state(tmp_path / "state", trained_run.recipe, None)
    assert torch.equal(weights(again), weights(live))


def digits_cnn_of(run):
    return models.create(run.recipe.model)


@pytest.mark.long
def test_features_are_matched_and_leave_no_trace_in_the_student(trained_run):
    context = trained_run.context()
    context.trained = lambda: teacher_of(trained_run)
    settings = Distill(stage="distill", epochs=1, student=STUDENT, features={"features.5": "features.5"})
    state = distill(State(digits_cnn_of(trained_run)), settings, context)
    assert set(state.model.state_dict()) == set(models.create(STUDENT).state_dict())
    assert not any(layer._forward_hooks for layer in state.model.modules())


def test_a_distillations_own_augmentation_stands_in_for_the_trainings(trained_run, monkeypatch):
    context = trained_run.context()
    context.trained = lambda: teacher_of(trained_run)
    seen = []
    monkeypatch.setattr(augmentation, "shift_and_flip", lambda inputs: (seen.append(len(inputs[0])), inputs)[1])
    own = "emberline.models.augmentation:shift_and_flip"
    distill(
        State(digits_cnn_of(trained_run)), Distill(stage="distill", epochs=1, student=STUDENT, augment=own), context
    )
    assert context.recipe.train.augment is None
    assert len(seen) > 1


def test_the_loss_is_hintons():
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    labels = torch.tensor([0, 1, 2, 0])
    settings = Distill(stage="distill", epochs=1, temperature=2, soft=0.6, hard=0.4)
    loss = DistillLoss(settings, nn.functional.cross_entropy)(Lesson(student, teacher, torch.zeros(())), labels)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 0.6 * 4 * (p * (p / q).log()).sum(1).mean() + 0.4 * nn.functional.cross_entropy(student, labels)
    torch.testing.assert_close(loss, expected)


def test_a_student_with_other_classes_than_its_teacher_is_refused(trained_run):
    context = trained_run.context()
    context.trained = lambda: teacher_of(trained_run)
    other = Model(factory="emberline.models.digits:digits_cnn", arguments={"width": 4, "num_classes": 7})
    with pytest.raises(StageFailed, match="the student answers with 7 numbers a row, its teacher with 10"):
        distill(State(digits_cnn_of(trained_run)), Distill(stage="distill", epochs=1, student=other), context)


def test_a_layer_of_features_that_is_not_there_is_named(trained_run):
    context = trained_run.context()
    context.trained = lambda: teacher_of(trained_run)
    settings = Distill(stage="distill", epochs=1, student=STUDENT, features={"features.5": "blocks.5"})
    with pytest.raises(InvalidSetting, match=r"features \(student's layer\) is 'blocks.5'"):
        distill(State(digits_cnn_of(trained_run)), settings, context)


def test_a_student_takes_over_parts_and_a_table_in_two_factors():
    torch.manual_seed(0)
    shape = {"vocabulary": 12, "width": 8, "heads": 2, "inner": 16, "positions": 4}
    trained, student = encoder(2, layers=2, **shape), encoder(2, layers=1, table=8, **shape)
    inherit(student, trained, {"tokens": "tokens", "layers.0": "layers.1"})
    torch.testing.assert_close(student.layers[0].state_dict(), trained.layers[1].state_dict())
    ids = torch.arange(12)
    torch.testing.assert_close(student.tokens(ids), trained.tokens(ids))  # as wide as the table: nothing is lost
    narrow = encoder(2, layers=1, table=4, **shape)
    inherit(narrow, trained, {"tokens": "tokens"})
    singular = torch.linalg.svdvals(trained.tokens.weight)
    lost = (narrow.tokens(ids) - trained.tokens(ids)).norm()
    torch.testing.assert_close(lost, singular[4:].norm())  # the least that four columns can lose


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"layers.0": "layers.7"}, "inherit .trained net's part. is 'layers.7'"),
        ({"layers.0": "classifier"}, "inherit.layers.0 is 'classifier'"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(parts, text):
    shape = {"vocabulary": 12, "width": 8, "heads": 2, "inner": 16, "positions": 4}
    with pytest.raises(InvalidSetting, match=text):
        inherit(encoder(2, layers=1, **shape), encoder(2, layers=2, **shape), parts)


def test_answers_to_other_rows_are_refused(trained_run, recorded, tmp_path):
    rows = trained_run.context().splits.train
    with pytest.raises(InvalidSetting, match="number of answers is"):
        read_answers(recorded, trained_run.recipe, rows.take([0, 1, 2]))
    with pytest.raises(InvalidSetting, match="the answers' split is 'train'; 'validation' is required"):
        read_answers(recorded, trained_run.recipe, rows, "validation")
    with pytest.raises(MissingFile, match="recorded answers"):
        read_answers(tmp_path / "none.parquet", trained_run.recipe, rows)


def test_answers_to_as_many_rows_of_the_same_source_in_another_order_are_refused(trained_run, recorded):
    rows = trained_run.context().splits.train
    with pytest.raises(InvalidSetting, match="the answers' rows is"):
        read_answers(recorded, trained_run.recipe, rows.take(list(range(len(rows)))[::-1]))


def test_rows_that_tell_no_digest_are_known_by_source_split_and_number(trained_run, recorded):
    rows = trained_run.context().splits.train
    untold = First(rows, len(rows))
    assert len(read_answers(recorded, trained_run.recipe, untold)) == len(rows)


def test_recorded_answers_beside_augmentation_are_refused(trained_run, recorded):
    recipe = load_recipe(trained_run.recipe_path, ["train.augment=toy:augment"])
    context = trained_run.context()
    context.recipe = recipe
    with pytest.raises(InvalidSetting, match=r"no train\.augment beside it"):
        distill(State(digits_cnn_of(trained_run)), Distill(stage="distill", epochs=1, recorded=str(recorded)), context)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("{stage: distill, epochs: 1, soft: 0}", "the teacher has no say"),
        ("{stage: distill, epochs: 1, recorded: a.parquet, features: {a: b}}", "hold no features"),
        ("{stage: distill, epochs: 1, inherit: {a: b}}", "inherit does nothing without a student"),
    ],
)
def test_a_distillation_that_teaches_nothing_is_refused(trained_run, setting, text):
    with pytest.raises(InvalidCombination, match=text):
        load_recipe(trained_run.recipe_path, [f"compress.artifacts.int8.stages.1={setting}"])
