"""`batch_size: auto`: what fits is found once, and is the same run for whoever goes on."""

import pytest

from emberline.recipe import Optimizer, Train, load_recipe
from emberline.train.fitting import Tried, best_rows, choose, most_rows, next_rows, scaled_rate

AUTO = (
    "train.batch_size=auto", "train.optimizer.at_batch_size=24", "data.arguments={train: 400}", "train.epochs=2",
    "train.checkpoint_every_s=1000",
)  # fmt: skip
HUNGRY = """
class Hungry(nn.Module):
    def forward(self, x):
        return x + 0 * torch.ones(len(x), 1 << 22).sum(1, keepdim=True)  # 16 MiB a row

def hungry_net():
    return nn.Sequential(net(), Hungry())
"""


def walk(peaks: dict[int, int | None], most: int, budget: int) -> list[Tried]:
    tried: list[Tried] = []
    while (rows := next_rows(tried, most, budget)) is not None:
        tried.append(Tried(rows, peaks[rows]))
    return tried


def test_no_size_is_tried_that_would_not_fit_if_memory_grew_as_before():
    peaks = {2: 110, 4: 120, 8: 140, 16: 180, 32: 260}
    assert [one.rows for one in walk(peaks, 1000, 200)] == [2, 4, 8, 16]
    assert best_rows(walk(peaks, 1000, 200), 200) == 16
    assert [one.rows for one in walk(peaks, 20, 10_000)] == [2, 4, 8, 16]
    assert best_rows(walk({2: 110, 4: None}, 1000, 200), 200) == 2
    assert best_rows([Tried(2, 110, state_bytes=40)], 200) is None  # two snapshots and a checkpoint come on top
    assert most_rows(77, Train(batch_size=24, virtual_shards=6)) == 2


def test_the_learning_rate_grows_linearly_for_sgd_and_by_the_root_for_adamw():
    settings = {"learning_rate": 0.1, "at_batch_size": 64}
    assert scaled_rate(Optimizer(name="sgd", **settings), 256) == pytest.approx(0.4)
    assert scaled_rate(Optimizer(name="adamw", **settings), 256) == pytest.approx(0.2)


def test_steps_are_measured_until_memory_would_be_short(toy):
    (toy.folder / "toy.py").write_text((toy.folder / "toy.py").read_text() + HUNGRY)
    settings = (*AUTO, "model.factory=toy:hungry_net", "data.arguments={train: 100000}")
    recipe = load_recipe(toy.folder / "toy.yaml", settings)
    budget = 1500 << 20
    choice, text = choose(
        toy.folder / "toy.yaml", settings, recipe, num_rows=100_000, training="t", budget_bytes=budget
    )
    assert 4 * 6 <= choice.batch_size <= 64 * 6, text  # 64 rows alone would take 1 GiB
    assert choice.learning_rate == pytest.approx(0.01 * (choice.batch_size / 24) ** 0.5)


def test_the_choice_stays_whoever_goes_on_with_the_run(toy, make_toy):
    with toy.world(3, *AUTO) as workers:
        toy.wait_for_step(5)
        workers[0].kill()
        workers[0].join()
    toy.train_world(1, *AUTO)
    (done,) = toy.events("done")
    assert (done["batch_size"], done["steps"]) == (24, 2 * 17)
    assert done["learning_rate"] == pytest.approx(0.01)
    assert sum("batch_size: auto is 24" in event["text"] for event in toy.events("say")) == 1
    plain = make_toy("plain")
    plain.train_world(2, *AUTO[2:])
    assert (toy.weights(), toy.losses()) == (plain.weights(), plain.losses())
