"""A quick look at a fixed part of the training rows."""

from emberline.artifact import read_artifact
from emberline.paper import read_manifest


def test_a_sampled_training_says_so_in_its_output_log_manifest_and_artifact(toy):
    output = toy.train("--sample", "0.5", "--set", "train.epochs=1", workers=1)
    assert "trains on a sample: the same 38 rows each time, 0.5 of all" in output
    assert [(event["fraction"], event["rows"]) for event in toy.events("sample")] == [(0.5, 38)]
    facts = read_manifest(toy.run, "run").facts
    assert (facts["sample"], facts["rows"]) == (0.5, 38)
    trained = toy.run / "artifacts" / "trained"
    assert read_manifest(trained, "artifact").facts["sample"] == 0.5
    (stage,) = read_artifact(trained)[1].stages
    assert stage["sample"] == 0.5
    refused = toy.train("--set", "train.epochs=1", workers=1, code=1)
    assert "data.sample: 0.5 → None" in refused
