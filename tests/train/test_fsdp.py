"""Models divided among workers: another number of them goes on with the same rows, from a checkpoint that is whole."""

import pytest
import torch

from emberline.data import load
from emberline.errors import InvalidCombination
from emberline.models import create
from emberline.recipe import load_recipe
from emberline.train import fence
from emberline.train.checkpoint import Checkpoints
from emberline.train.making import make_job, make_learner, place_model
from emberline.train.world import World

FSDP = ("train.strategy=fsdp2", "train.augment=null", "model.factory=toy:plain_net", "train.precision=float32")
SOURCE = """
def plain_net():  # neither dropout nor batch norm, whose results depend on who computes what
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Sequential(nn.Linear(32, 32), nn.ReLU()), nn.Linear(32, 3))
"""


@pytest.fixture
def fsdp(toy, make_toy):
    """Toys by name whose recipe asks for fsdp2."""

    def one(name):
        made = toy if name == "toy" else make_toy(name)
        (made.folder / "toy.py").write_text((made.folder / "toy.py").read_text() + SOURCE)
        recipe = (made.folder / "toy.yaml").read_text().splitlines()
        of_others = ("virtual_shards", "snapshot_every", "augment")
        (made.folder / "toy.yaml").write_text(
            "\n".join(line for line in recipe if not line.strip().startswith(of_others))
        )
        return made

    return one


def test_another_number_of_workers_goes_on_with_the_same_rows_and_the_loss_goes_on(fsdp):
    alone, toy = fsdp("alone"), fsdp("toy")
    alone.train_world(1, *FSDP, "train.checkpoint_every_s=1000")
    with toy.world(2, *FSDP) as workers:
        toy.wait_for_step(4)
        workers[0].terminate()
        for one in workers:
            one.join(60)
    good = toy.events("preempted")[0]["step"]
    with toy.world(2, *FSDP) as workers:
        toy.wait_for_step(good + 3)  # its first step was saved too
        workers[1].kill()
        workers[0].join(60)
        assert workers[0].exitcode == 3, toy.failure()  # lost the other one: nothing that a retry would meet again
    newest = max((toy.run / "checkpoints").glob("step-*"))
    parts = sorted(newest.glob("*.safetensors"))
    assert len(parts) == 2
    content = bytearray(parts[0].read_bytes())
    content[-3] ^= 4
    parts[0].write_bytes(content)
    toy.train_world(3, *FSDP)
    worlds = toy.events("world")
    assert [world["world_size"] for world in worlds] == [2, 2, 3]
    assert (worlds[-1]["source"], worlds[-1]["step"], newest.name) == ("checkpoint", good, f"step-{good + 1:06d}")
    assert any(f"skipped {newest.name}: " in event["text"] for event in toy.events("say"))
    assert any("results depend on the number of workers" in event["text"] for event in toy.events("say"))
    # rows of another order, or a state that was not taken over whole, would show in the third digit
    assert toy.losses() == pytest.approx(alone.losses(), rel=1e-4)
    assert toy.events("done")[0]["accuracy"] == alone.events("done")[0]["accuracy"] > 0.4
    seen, expected = ({event["epoch"]: event["accuracy"] for event in one.events("epoch")} for one in (toy, alone))
    assert seen == expected


def test_a_notice_to_one_worker_is_a_checkpoint_by_all(fsdp):
    toy = fsdp("toy")
    with toy.world(2, *FSDP, "train.checkpoint_every_s=1000", "train.epochs=2000") as workers:
        toy.wait_for_step(5)
        workers[1].terminate()
        for one in workers:
            one.join(60)
        assert [one.exitcode for one in workers] == [75, 75], toy.failure()
    (saved,) = toy.events("checkpoint")
    assert (saved["why"], saved["step"]) == ("preemption", toy.events("step")[-1]["step"])
    assert toy.events("preempted")[0]["step"] == saved["step"]


def test_a_world_that_was_overtaken_cannot_commit_its_parts(fsdp, monkeypatch):
    toy = fsdp("toy")
    monkeypatch.syspath_prepend(str(toy.folder))
    monkeypatch.delitem(__import__("sys").modules, "toy", raising=False)
    recipe, world = load_recipe(toy.folder / "toy.yaml", FSDP), World()
    try:
        model = place_model(recipe.train, create(recipe.model, toy.folder), world)
        job = make_job(recipe, toy.folder, load(recipe.data, toy.folder), model, world)
        learner, checkpoints = make_learner(recipe, job), Checkpoints(toy.folder, digest="x", keep=2)
        old, new = checkpoints.claim_generation(), checkpoints.claim_generation()
        with pytest.raises(fence.Fenced):
            checkpoints.save_together(1, learner.tensors(), world, seed=0, generation=old)
        assert checkpoints.newest([]) is None
        checkpoints.save_together(1, learner.tensors(), world, seed=0, generation=new)
        assert checkpoints.newest([])[0] == 1
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "setting", ["train.ema=0.9", "train.reduce=ddp", "train.precision=float16", "train.virtual_shards=2"]
)
def test_what_it_cannot_do_is_refused_rather_than_ignored(fsdp, setting):
    with pytest.raises(InvalidCombination, match="strategy fsdp2"):
        load_recipe(fsdp("toy").folder / "toy.yaml", (*FSDP[:3], setting))
