"""What a recipe's train section asks for is done, and done bit for bit: in real workers, without a launcher."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from emberline.artifact import read_artifact
from emberline.recipe import EarlyStopping, load_recipe
from emberline.train.early import improved
from emberline.train.folder import training_digest
from emberline.train.pace import choose_every

EVERYTHING = (
    "train.accumulate=2", "train.precision=bfloat16", "train.ema=0.9", "train.batch_size=12", "train.virtual_shards=4",
    "train.early_stopping={metric: loss, patience: 6}",
)  # fmt: skip


def trained(toy, name="trained") -> dict[str, torch.Tensor]:
    return load_file(toy.run / "artifacts" / name / "model.safetensors")


def digest(tensors) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for _, t in sorted(tensors.items()))).hexdigest()


def kill_a_worker_of(toy, size: int, step: int, *settings: str) -> None:
    with toy.world(size, *settings) as workers:
        toy.wait_for_step(step)
        workers[-1].kill()
        workers[-1].join()


def test_accumulation_autocast_averaging_and_early_stopping_keep_the_bits(toy, make_toy):
    alone = make_toy("alone")
    alone.train_world(1, *EVERYTHING)
    kill_a_worker_of(toy, 3, 5, *EVERYTHING)
    toy.train_world(2, *EVERYTHING)
    assert [world["world_size"] for world in toy.events("world")] == [3, 2]
    assert toy.losses() == alone.losses()
    assert toy.weights() == alone.weights()
    assert [e["loss"] for e in toy.events("epoch")] == [e["loss"] for e in alone.events("epoch")]


@pytest.mark.long
def test_four_workers_and_three_deaths_give_the_bits_of_one(toy, make_toy):
    alone = make_toy("alone")
    alone.train_world(1, *EVERYTHING)
    for size, step in ((4, 2), (2, 5), (3, 9)):
        kill_a_worker_of(toy, size, step, *EVERYTHING)
    toy.train_world(4, *EVERYTHING)
    assert toy.losses() == alone.losses()
    assert toy.weights() == alone.weights()


def test_accumulated_batches_are_one_batch_of_as_many_shards(toy, make_toy):
    whole = make_toy("whole")
    whole.train_world(1, "train.epochs=1")
    toy.train_world(1, "train.epochs=1", "train.accumulate=2", "train.batch_size=12", "train.virtual_shards=3")
    assert toy.weights() == whole.weights()


def test_ddp_survives_a_kill_and_its_survivors_are_not_to_blame(toy):
    ddp = ("train.reduce=ddp", "train.accumulate=2", "train.batch_size=12", "train.epochs=3")
    with toy.world(2, *ddp) as workers:
        toy.wait_for_step(3)
        workers[1].kill()
        workers[0].join(30)
        assert workers[0].exitcode == 3, toy.failure()  # lost another one: nothing that a retry would meet again
    toy.train_world(3, *ddp)
    (restart,) = toy.events("restart")
    assert restart["steps_lost"] == 0
    assert restart["source"] == "snapshot"
    assert toy.events("done")[0]["accuracy"] > 0.4  # three classes


def test_early_stopping_ends_and_goes_back_to_the_best_epochs_weights(toy, make_toy):
    settings = ("train.schedule=constant", "train.optimizer.learning_rate=0.3", "train.epochs=30")
    toy.train_world(2, *settings, "train.early_stopping={metric: loss, patience: 2}")
    (stop,) = toy.events("early_stop")
    losses = [event["loss"] for event in toy.events("epoch")]
    best = stop["best_epoch"]
    assert losses.index(min(losses)) + 1 == best == len(losses) - 2 < 28
    (done,) = toy.events("done")
    assert (done["best_epoch"], done["epochs"], done["steps"]) == (best, len(losses), 4 * len(losses))
    until_best = make_toy("until-best")
    until_best.train_world(1, *settings, f"train.epochs={best}")
    assert digest(trained(toy)) == digest(trained(until_best))
    assert not (until_best.run / "artifacts" / "last").exists()
    patient = make_toy("patient")
    epochs = f"train.epochs={len(losses)}"
    patient.train_world(2, *settings, epochs, "train.early_stopping={metric: loss, patience: null}")
    assert patient.events("early_stop") == []
    assert digest(trained(patient)) == digest(trained(toy))
    assert digest(trained(patient, "last")) == digest(trained(toy, "last")) != digest(trained(toy))
    assert read_artifact(toy.run / "artifacts" / "last")[0].facts["steps"] == 4 * len(losses)


def test_the_moving_average_is_what_is_kept(toy, make_toy):
    plain = make_toy("plain")
    for one, ema in ((plain, ()), (toy, ("train.ema=0.5",))):
        one.train_world(1, "train.epochs=1", "train.checkpoint_every_s=1000", *ema)
    assert toy.losses() == plain.losses()
    averaged, last = trained(toy), trained(plain)
    state = load_file(next((toy.run / "checkpoints").glob("step-*")) / "state.safetensors")
    assert all(torch.equal(state[f"model/{name}"], last[name]) for name in last)
    assert all(torch.equal(state[f"average/module.{name}"], averaged[name]) for name in averaged)
    assert not torch.equal(averaged["0.weight"], last["0.weight"])


def test_a_float16_overflow_leaves_a_step_out_and_training_goes_on(toy):
    (toy.folder / "toy.py").write_text(
        (toy.folder / "toy.py").read_text()
        + "\ndef steep_loss(outputs, labels):\n    return 1000 * nn.functional.cross_entropy(outputs.float(), labels)\n"
    )
    toy.train_world(2, "train.precision=float16", "train.loss=toy:steep_loss")
    assert toy.events("overflow")
    assert toy.events("done")[0]["accuracy"] > 0.4
    assert all(np.isfinite(toy.losses()))


def test_snapshots_every_few_steps_are_chosen_from_what_they_cost():
    assert [choose_every(write, step) for write, step in ((0.001, 1), (0.01, 1), (0.011, 1), (0.03, 0.1), (1, 0))] == [
        1, 1, 2, 30, 1,
    ]  # fmt: skip


def test_the_choice_is_logged_and_a_killed_worker_costs_no_more_steps_than_it(toy):
    (toy.folder / "kill-1-46").touch()
    with toy.world(2, "train.snapshot_every=auto", "train.checkpoint_every_s=1000") as workers:
        workers[1].join(60)
    (chosen,) = toy.events("snapshots")
    assert chosen["every"] == choose_every(chosen["write_ms"], chosen["step_ms"]) >= 1
    toy.train_world(2, "train.snapshot_every=auto", "train.checkpoint_every_s=1000")
    (restart,) = toy.events("restart")
    assert restart["steps_lost"] <= chosen["every"]
    assert restart["source"] == "snapshot"


@pytest.mark.parametrize(
    ("metric", "value", "best", "better"),
    [
        ("accuracy", 0.6, 0.5, True), ("accuracy", 0.505, 0.5, False), ("loss", 0.4, 0.5, True),
        ("loss", 0.6, 0.5, False), ("loss", float("nan"), float("nan"), False), ("loss", 9.0, float("nan"), True),
    ],
)  # fmt: skip
def test_what_an_improvement_is(metric, value, best, better):
    assert improved(EarlyStopping(metric=metric, min_delta=0.01), value, best) is better


def test_the_pace_of_snapshots_is_no_other_training(toy):
    recipes = [load_recipe(toy.folder / "toy.yaml", (f"train.snapshot_every={k}",)) for k in (1, "auto")]
    assert training_digest(recipes[0]) == training_digest(recipes[1])
