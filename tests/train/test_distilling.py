"""A model taught while it is trained, by a teacher at its side."""

import sys

import pytest
from safetensors.torch import load_file

from emberline.compress.record import record

STUDENT = ("train.epochs=3", "model={factory: toy:net}", "train.augment=null", "train.checkpoint_every_s=1000")


@pytest.fixture
def teacher(undisturbed):
    return undisturbed.run / "artifacts" / "trained"


def trained(toy):
    return load_file(toy.run / "artifacts" / "trained" / "model.safetensors")


def test_a_live_teacher_gives_the_same_bits_at_any_number_of_workers_and_what_its_record_gives(
    toy, make_toy, teacher, monkeypatch
):
    live = f"train.distill={{teacher: {teacher}, temperature: 2, soft: 1, hard: 0}}"
    toy.train_world(3, *STUDENT, live)
    alone, taught = make_toy("alone"), make_toy("recorded")
    alone.train_world(1, *STUDENT, live)
    assert (toy.weights(), toy.losses()) == (alone.weights(), alone.losses())
    monkeypatch.syspath_prepend(str(teacher.parents[3]))
    monkeypatch.delitem(sys.modules, "toy", raising=False)  # another test's
    answers = record(teacher, recipe=teacher.parents[3] / "toy.yaml", split="train", output=taught.folder / "a.parquet")
    taught.train_world(1, *STUDENT, f"train.distill={{recorded: {answers}, temperature: 2, soft: 1, hard: 0}}")
    assert taught.losses() == pytest.approx(alone.losses(), rel=1e-4)
    own = make_toy("own")
    own.train_world(1, *STUDENT)
    assert own.losses()[0] != pytest.approx(alone.losses()[0], rel=0.1)  # hard: 0, so the labels said nothing


def test_a_teacher_of_other_classes_is_refused_before_a_weight_moves(toy, teacher):
    with pytest.raises(RuntimeError, match=r"ended with \[1\]"):
        toy.train_world(1, "model.arguments={outputs: 5}", f"train.distill={{teacher: {teacher}}}")
    assert "train.distill: the student answers with 5 numbers a row, its teacher with 3" in toy.failure()
    assert toy.events("step") == []
