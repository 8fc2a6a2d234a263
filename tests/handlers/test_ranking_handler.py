"""Rankings: the best items of a request, by one model or by a cascade of them."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from ember_preprocessing import Preprocessing, stack
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

SPEC = {"inputs": [{"name": "age", "shape": [1]}, {"name": "price", "shape": [1]}]}


def scorer(price):
    """Scores 100 * age + price * `price`, which is easy to check by hand."""
    from torch import nn

    class Scorer(nn.Module):
        def forward(self, age, cost):
            return 100 * age + price * cost

    return Scorer()


@pytest.fixture(scope="module")
def artifacts(export_artifact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranking")
    probe = {"age": [1], "price": [2]}
    return [export_artifact(folder / name, scorer(sign), SPEC, probe) for name, sign in (("up", 1.0), ("down", -1.0))]


@pytest.fixture(scope="module")
def worker(make_worker, artifacts):
    return make_worker(artifacts[0], "ranking_handler.py")


def serve_cascade(make_worker, artifacts, rules):
    """A worker of an archive as `emberline archive` fills it for a cascade."""

    def fill(folder):
        for file in artifacts[-1].iterdir():
            shutil.copy(file, folder)
        passes = [{"folder": f"pass-{number}", **rule} for number, rule in enumerate([*rules, {}], start=1)]
        (folder / "cascade.json").write_text(json.dumps({"passes": passes}))
        for one, artifact in zip(passes, artifacts, strict=True):
            shutil.copytree(artifact, folder / one["folder"])

    return make_worker(None, "cascade_handler.py", fill)


@pytest.fixture(scope="module")
def cascade(make_worker, artifacts):
    """Likes high prices first; the two best go on to a model that likes low ones."""
    return serve_cascade(make_worker, artifacts, [{"keep": 2}])


def ask(worker, **body):
    (answer,) = worker.ask(json.dumps(body).encode())
    return answer


ITEMS = [{"id": name, "price": price} for name, price in (("a", 3), ("b", 9), ("c", 5))]


def test_the_best_items_come_back_best_first(worker):
    found = ask(worker, context={"age": 1}, items=ITEMS, top=2).json["ranking"]
    assert [(one["id"], one["index"], one["score"]) for one in found] == [("b", 1, 109.0), ("c", 2, 105.0)]


def test_a_ranking_that_cannot_be_used_names_its_field(worker):
    bodies = [
        ({"context": {"age": 1}, "items": []}, "items"),
        ({"context": {"age": 1}, "items": [{"price": 1}, 7]}, "items[1]"),
        ({"context": {"age": 1}, "items": [{"price": "x"}]}, "items[0].price"),
        ({"context": {"age": None}, "items": [{"price": 1}]}, "context.age"),
        ({"context": {"age": 1}, "items": [{"price": 1, "age": 2}]}, "items[0].age"),
        ({"context": [1], "items": ITEMS}, "context"),
        ({"items": ITEMS, "top": 0}, "top"),
        ({"items": ITEMS, "user": 3}, "user"),
    ]
    answers = worker.ask(*(json.dumps(body).encode() for body, _ in bodies))
    assert [(one.status, one.json["field"]) for one in answers] == [(400, field) for _, field in bodies]


@pytest.mark.parametrize(
    "wrong", ["\ud800", 2**64, -(2**63) - 1, 1.5, True, {"a": 1}, json.loads("[" * 300 + "]" * 300)]
)
def test_an_id_that_no_answer_can_hold_is_refused_and_the_neighbours_are_answered(worker, wrong):
    good, bad = ({"context": {"age": 1}, "items": [{"price": 1}, {"id": one, "price": 2}]} for one in ("a", wrong))
    before, refused, after = worker.ask(*({"body": body} for body in (good, bad, good)))
    assert (refused.status, refused.json["field"]) == (400, "items[1].id")
    assert [one.json["ranking"][0]["id"] for one in (before, after)] == ["a", "a"]


def test_ids_come_back_as_they_were_sent(worker):
    ids = ["", "ä\n", 0, 2**64 - 1, -(2**63), None]
    found = ask(worker, context={"age": 1}, items=[{"id": one, "price": 1} for one in ids]).json["ranking"]
    assert [one.get("id") for one in found] == ids


def test_only_the_best_of_a_pass_go_on_to_the_next(cascade):
    found = ask(cascade, context={"age": 1}, items=ITEMS).json["ranking"]
    assert [(one["id"], one["score"]) for one in found] == [("c", 95.0), ("b", 91.0), ("a", 103.0)]


def test_a_cascade_ranks_as_its_rules_were_judged(cascade):
    from emberline.compress import thresholds

    items = [{"price": price} for price in (3, 9, 5, 5, 1, 9)]
    served = [one["index"] for one in ask(cascade, context={"age": 1}, items=items).json["ranking"]]
    scores = np.asarray([[100 + one["price"] for one in items], [100 - one["price"] for one in items]], float)
    places = []
    for place in range(len(items)):  # worth showing is this one alone, so that its rank is all that counts
        gain = np.arange(len(items)) == place
        answers = thresholds.Answers(scores, scores, scores > 0, gain.astype(float), np.zeros(len(items)))
        places.append(
            round(2 ** (1 / thresholds.judge(answers, [(2, None)], [thresholds.Cost((1,), (1.0,))] * 2, 99).quality))
            - 2
        )
    assert [served.index(place) for place in range(len(items))] == places


def test_rankings_and_rows_of_a_batch_stay_apart(cascade):
    two = json.dumps({"context": {"age": 1}, "items": ITEMS}).encode()
    first, row, second = cascade.ask(two, b'{"age": 1, "price": 4}', two)
    assert first.json == second.json
    assert row.json == {"outputs": [96.0]}  # a lone row goes to the last model


def test_only_unsure_rows_go_on_to_the_heavier_classifier(make_worker, export_artifact, tmp_path_factory):
    from torch import nn

    class Steep(nn.Module):
        def __init__(self, slope):
            super().__init__()
            self.slope = slope

        def forward(self, x):
            return x * self.slope

    folder, spec = tmp_path_factory.mktemp("exit"), {"inputs": [{"name": "x", "shape": [2]}]}
    artifacts = [
        export_artifact(folder / n, Steep(s), spec, {"x": [1, 0]}, "ab") for n, s in (("light", 1), ("full", -1))
    ]
    worker = serve_cascade(make_worker, artifacts, [{"confidence": 0.9}])
    sure, unsure = worker.ask(b'{"x": [5, 0]}', b'{"x": [1, 0]}')
    assert (sure.json["label"], unsure.json["label"]) == ("a", "b")  # the two models disagree about everything


def ids_summed(slope):
    from torch import nn

    class Summed(nn.Module):
        def forward(self, x):
            return slope * x.float().flatten(1)[:, :2]

    return Summed()


TEXTS = {"inputs": [{"name": "text", "kind": "text", "length": 4, "tokenizer": "bytes"}]}
PICTURES = {"inputs": [{"name": "image", "kind": "image"}], "steps": [{"op": "resize", "size": [2, 2]}]}


def png(shade):
    file = io.BytesIO()
    Image.new("RGB", (3, 5), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("spec", "bare"),
    [
        (TEXTS, [b"good", "bad", b"[x]", b"\xef\xbb\xbfgood"]),
        (PICTURES, [png(9), png(70)]),
    ],
)
def test_a_cascade_reads_bare_bodies_as_its_models_do_alone(make_worker, export_artifact, tmp_path, spec, bare):
    name, first = spec["inputs"][0]["name"], bare[0]
    encoded = {name: first.decode() if name == "text" else base64.b64encode(first).decode()}
    artifacts = [export_artifact(tmp_path / n, ids_summed(s), spec, encoded, "ab") for n, s in (("a", 1), ("b", 2))]
    whole = serve_cascade(make_worker, artifacts, [{"confidence": 0.0}])
    bodies = [*bare, {name: first}, json.dumps(encoded).encode(), b"{", b""]
    expected = make_worker(artifacts[0], f"{name}_handler.py").ask(*bodies)
    assert [one.status for one in expected] == [200] * (len(bodies) - 2) + [400] * 2
    assert [(one.status, one.body) for one in whole.ask(*bodies)] == [(one.status, one.body) for one in expected]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.lists(st.one_of(st.integers(-(2**60), 2**60), st.floats(width=64), st.booleans(), st.none()), max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_rows_taken_together_are_the_rows_taken_alone(rows):
    apply = Preprocessing(
        {"inputs": [{"name": "x", "shape": [2], "maximum": 50}], "steps": [{"op": "scale", "by": 0.3}]}
    )
    instances = [{"x": row} for row in rows]
    together = apply.together(instances)
    if together is not None:
        alone = stack([apply(instance) for instance in instances])
        assert together[0].tobytes() == alone[0].tobytes()


@pytest.mark.parametrize(
    "steps",
    [
        [{"op": "scale", "by": 0.1}, {"op": "reshape", "shape": [1, 2, 3]}],
        [{"op": "normalise", "mean": [1, 2, 3], "std": [3, 2, 1]}],
        [{"op": "normalise", "mean": [0.5], "std": [0.25]}, {"op": "channels_first"}],
    ],
)
def test_steps_over_a_batch_give_the_bytes_of_steps_over_each_row(steps):
    apply = Preprocessing({"inputs": [{"name": "x", "shape": [2, 3]}], "steps": steps})
    instances = [{"x": (np.arange(6).reshape(2, 3) * k / 7).tolist()} for k in range(5)]
    (together,), (alone,) = apply.together(instances), stack([apply(instance) for instance in instances])
    assert together.shape == alone.shape
    assert together.tobytes() == alone.tobytes()
