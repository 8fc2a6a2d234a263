"""A run and its artifacts say which rows they were learnt from; that decides nothing."""

from emberline.artifact import read_artifact
from emberline.paper import read_manifest


def digest_in(toy):
    told = read_manifest(toy.run, "run").facts["data_digest"]
    assert read_artifact(toy.run / "artifacts" / "trained")[0].facts["data_digest"] == told
    return told


def change_rows(toy):
    """Other rows, and as many."""
    source = (toy.folder / "toy.py").read_text()
    (toy.folder / "toy.py").write_text(source.replace("default_rng(0)", "default_rng(1)"))


def test_the_same_rows_have_one_digest_and_others_another(toy, make_toy):
    again, other = make_toy("again"), make_toy("other")
    change_rows(other)
    for one in (toy, again, other):
        one.train_world(1)
    assert digest_in(toy) == digest_in(again)
    assert digest_in(toy)["rows"] == 77
    assert digest_in(toy)["xxh3"] != digest_in(other)["xxh3"]


def test_a_run_goes_on_with_other_rows_of_that_number_and_tells_that_they_changed(toy):
    (toy.folder / "kill-0-60").touch()
    toy.train("--set", "train.max_restarts=0", workers=1, code=1)
    change_rows(toy)
    assert "the training data are others than at the last start" in toy.train(workers=1)
    assert digest_in(toy)["changed"] == 1
    assert toy.events("world")[-1]["step"] > 0
    assert len(toy.events("data")) == 2
