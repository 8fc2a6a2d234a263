"""Rankings: groups of rows, NDCG as loss and metric, and a light ranker that learns from a heavy one's record."""

import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from emberline.compress.record import record
from emberline.data import ArrayRows, Subset
from emberline.data.subset import divide
from emberline.errors import EmberlineError
from emberline.models import losses
from emberline.recipe import Distillation
from emberline.train.evaluate import ndcg
from emberline.train.groups import Groups
from emberline.train.teaching import Lesson, TaughtLoss

SOURCE = '''
def scorer(width=16):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 1))

def requests(train=60):
    """Groups of 3 to 7 rows; what is relevant is a function of two of the inputs."""
    from emberline.data import ArrayRows
    random = np.random.default_rng(1)
    def rows(groups):
        sizes = random.integers(3, 8, groups)
        x = random.normal(size=(sizes.sum(), 6)).astype(np.float32)
        y = np.digitize(x[:, 0] - 2 * x[:, 1], [0.5, 2.0]).astype(np.int64)
        return ArrayRows({"x": x}, y, np.repeat(np.arange(groups), sizes))
    return Splits(rows(train), rows(40), rows(5))
'''

RANKING = (
    "model={factory: toy:scorer}", "data={source: toy:requests}", "labels=[]", "train.task=ranking", "train.top=5",
    "train.batch_size=12", "train.epochs=8", "train.optimizer.learning_rate=0.02", "train.checkpoint_every_s=1000",
    "train.augment=null",
)  # fmt: skip


@pytest.fixture
def ranked(toy, make_toy):
    """Toys by name whose data are requests with candidates."""

    def one(name):
        made = toy if name == "toy" else make_toy(name)
        (made.folder / "toy.py").write_text((made.folder / "toy.py").read_text() + SOURCE)
        return made

    return one


def test_the_metric_is_scikit_learns_and_rows_that_fill_up_count_for_nothing():
    random = torch.Generator().manual_seed(0)
    scores, gains = torch.randn(20, 6, generator=random), torch.randint(0, 4, (20, 6), generator=random)
    expected = [ndcg_score(gains[[i]], scores[[i]], k=4) for i in range(20)]
    np.testing.assert_allclose(ndcg(scores, gains, top=4), expected, rtol=1e-12)
    filled = torch.cat([gains, torch.full((20, 2), -1)], dim=1)
    ahead = torch.cat([scores, torch.full((20, 2), 9.0)], dim=1)
    assert torch.equal(ndcg(ahead, filled, top=4), ndcg(scores, gains, top=4))
    assert ndcg(scores, torch.zeros(20, 6, dtype=torch.int64), top=4).tolist() == [1.0] * 20


def test_the_loss_is_one_minus_ndcg_where_scores_are_far_apart_and_leaves_out_what_fills_up():
    scores, gains = torch.tensor([[3.0, 1.0, 2.0, 0.0]]), torch.tensor([[1, 3, 0, -1]])
    far = losses.ndcg(100 * scores.reshape(-1, 1), gains)
    torch.testing.assert_close(far.double(), 1 - ndcg(scores, gains, top=4).mean(), rtol=1e-6, atol=1e-6)
    outputs = scores.reshape(-1, 1).clone().requires_grad_()
    losses.ndcg(outputs, gains).backward()
    assert outputs.grad[1] < 0 < outputs.grad[2]  # the best is pushed up, what is worth nothing down
    assert outputs.grad[3] == 0
    two = torch.cat([torch.zeros(4, 1), outputs.detach()], dim=1)  # of two classes, the last one's probability counts
    assert losses.scores_of(two).argsort().tolist() == scores[0].argsort().tolist()


def test_a_ranking_teacher_is_followed_over_the_rows_of_each_group():
    student, teacher = torch.randn(6, 1), torch.randn(6, 1)
    labels = torch.tensor([[0, 1, -1], [2, 0, 0]])
    loss = TaughtLoss(Distillation(recorded="x", temperature=2.0, soft=1.0, hard=0.0), losses.ndcg)
    expected = 0.0
    for rows in ([0, 1], [3, 4, 5]):
        p, q = (teacher[rows, 0] / 2).softmax(0), (student[rows, 0] / 2).softmax(0)
        expected += 4 * (p * (p / q).log()).sum() / 2
    torch.testing.assert_close(loss(Lesson(student, teacher), labels), expected)


def test_groups_stay_whole_in_any_order_sample_and_division():
    numbers = np.array([7, 3, 7, 7, 3, 9, 1, 1])
    rows = ArrayRows({"x": np.zeros((8, 1))}, np.zeros(8, np.int64), numbers)
    groups = Groups(rows, "here")
    members, fills = groups.rows_of(np.array([0, 2, 1]))
    assert members.tolist() == [[0, 2, 3], [5, 5, 5], [1, 4, 1]]
    assert fills.tolist() == [[False] * 3, [False, True, True], [False, False, True]]
    assert [sorted(groups.order(0, epoch)) for epoch in range(3)] == [[0, 1, 2, 3]] * 3
    kept, held = divide(8, 0.5, numbers)
    assert sorted([*kept, *held]) == list(range(8))
    assert set(numbers[kept]) & set(numbers[held]) == set()
    assert Groups(Subset(rows, held), "here").length > 0
    with pytest.raises(EmberlineError, match="task ranking needs groups of rows"):
        Groups(ArrayRows({"x": np.zeros((8, 1))}, np.zeros(8, np.int64)), "here")


def test_a_ranking_is_learned_with_the_same_bits_by_one_worker_and_by_three(ranked):
    alone, many = ranked("alone"), ranked("toy")
    alone.train_world(1, *RANKING)
    many.train_world(3, *RANKING)
    assert many.losses() == alone.losses()
    assert many.weights() == alone.weights()
    seen = [event["ndcg"] for event in many.events("epoch")]
    assert seen == [event["ndcg"] for event in alone.events("epoch")]
    assert seen[-1] > 0.95 > seen[0]
    (done,) = many.events("done")
    assert (done["metric"], done["ndcg"]) == ("ndcg", seen[-1])


def test_a_light_ranker_learns_from_a_heavy_ones_record_alone_and_goes_on_with_no_other(ranked, monkeypatch):
    heavy, light = ranked("heavy"), ranked("toy")
    heavy.train_world(2, *RANKING, "model.arguments={width: 64}")
    recipe = heavy.folder / "toy.yaml"
    recipe.write_text(recipe.read_text().replace("{source: toy:data}", "{source: toy:requests}"))
    monkeypatch.syspath_prepend(str(heavy.folder))
    monkeypatch.delitem(sys.modules, "toy", raising=False)  # another test's
    answers = light.folder / "answers.parquet"
    record(heavy.run / "artifacts" / "trained", recipe=recipe, split="train", output=answers)
    taught = f"train.distill={{recorded: {answers}, temperature: 1, soft: 1, hard: 0}}"
    student = (*RANKING, "model.arguments={width: 4}", "train.epochs=12", taught)
    with light.world(2, *student) as workers:
        light.wait_for_step(20)
        workers[0].kill()
        workers[0].join()
    kept = answers.read_bytes()
    record(heavy.run / "artifacts" / "trained", recipe=recipe, split="validation", output=answers)
    with pytest.raises(RuntimeError, match=r"ended with \[1\]"):
        light.train_world(1, *student)
    assert "the teacher is another one than when this run was started" in light.failure()
    answers.write_bytes(kept)
    light.train_world(1, *student)
    seen = [event["ndcg"] for event in light.events("epoch")]
    assert seen[-1] > 0.95 > seen[0]
