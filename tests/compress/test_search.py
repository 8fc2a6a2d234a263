"""Searching: what is looked at, what is evaluated, what is left."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from emberline.compress.job import open_job
from emberline.compress.search.records import Records
from emberline.compress.search.run import search_recipe
from emberline.compress.search.select import Costs, Evaluated, Look, beaten, choose_next, front_of, predict
from emberline.compress.search.sought import Sought
from emberline.compress.search.space import Candidate, Net, net_of, stages_of
from emberline.compress.search.walk import walk
from emberline.data import Splits, rows_from_arrays
from emberline.errors import EmberlineError, InvalidSetting, MissingTool, StageFailed
from emberline.recipe import Export, Model, Prune, Quantize, Search, Variant, load_recipe

SEARCH = Search(arguments={"width": (8, 16), "depth": (2, 3)}, prune=(0.0, 0.5), epochs=9, repair_epochs=5)
TRAINED = {"width": 16, "depth": 3, "num_classes": 10}
WHOLE, SMALL = Net(), Net({"width": 8})


def evaluated(net: Net, precision: str, accuracy: float, latency: float, *, failure: str | None = None) -> Evaluated:
    return Evaluated(Candidate(net, precision), Costs(accuracy, latency, 1.0, 200.0), failure)


def test_a_net_has_one_form_whatever_choices_led_to_it():
    chosen = {"argument width": 1, "argument depth": 1, "prune": 0}
    assert (
        net_of({**chosen, "distill": 0}, SEARCH, TRAINED) == net_of({**chosen, "distill": 1}, SEARCH, TRAINED) == WHOLE
    )
    other = net_of({**chosen, "argument width": 0, "prune": 1, "distill": 1}, SEARCH, TRAINED)
    assert other.key == "width=8 prune=0.5 distilled"


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (Candidate(WHOLE, "fp32"), ["export"]),
        (Candidate(WHOLE, "int8"), ["quantize", "export"]),
        (Candidate(SMALL, "fp32"), ["distill", "export"]),
        (Candidate(Net({}, 0.5), "bf16"), ["prune", "finetune", "quantize", "export"]),
        (
            Candidate(Net({"width": 8}, 0.5, distill=True), "int8"),
            ["distill", "prune", "distill", "quantize", "export"],
        ),
    ],
)
def test_stages_follow_from_the_candidate(candidate, expected):
    model = Model(factory="emberline.models.digits:digits_cnn", arguments={"width": 16})
    stages = stages_of(candidate, SEARCH, model, Variant(stages=[Export(stage="export")]))
    assert [stage.stage for stage in stages] == expected
    if candidate.net.arguments:
        assert stages[0].student.arguments == {"width": 8}
        assert stages[0].epochs == 9


@pytest.mark.parametrize(
    ("precision", "kept"),
    [
        ("int8", {"calibration_rows", "skip_layers", "smooth", "embeddings"}),
        ("int8_dynamic", {"calibration_rows", "skip_layers", "smooth", "embeddings"}),
        ("bf16", set()),
    ],
)
def test_a_candidate_keeps_what_the_sought_artifact_says_of_layers_and_calibration(precision, kept):
    model = Model(factory="emberline.models.digits:digits_cnn", arguments={"width": 16})
    settings = {"calibration_rows": 32, "skip_layers": ("classifier",), "smooth": 0.5, "embeddings": "float"}
    like = [
        Prune(stage="prune", ratio=0.9, ignored_layers=("features.0",)),
        Quantize(stage="quantize", **settings),
        Export(stage="export", max_batch=8),
    ]
    candidate = Candidate(Net({}, 0.5), precision)
    prune, _, quantize, export = stages_of(candidate, SEARCH, model, Variant(stages=like))
    assert (prune.ratio, prune.round_to, prune.ignored_layers) == (0.5, SEARCH.round_to, ("features.0",))
    assert (quantize.precision, export.max_batch) == (precision, 8)
    assert quantize.model_fields_set - {"stage", "precision"} == kept
    assert all(getattr(quantize, name) == settings[name] for name in kept)
    written = prune.model_dump(mode="json", exclude_unset=True)
    assert written == {"stage": "prune", "ratio": 0.5, "round_to": 8, "ignored_layers": ["features.0"]}


def test_a_prediction_is_corrected_by_what_its_precision_showed():
    looks = {WHOLE.key: Look(0.90, 1e6, 1000), SMALL.key: Look(0.80, 5e5, 500)}
    found = [evaluated(WHOLE, "int8", 0.95, 2.0), evaluated(WHOLE, "fp32", 0.99, 10.0)]
    predicted = predict(Candidate(SMALL, "int8"), looks[SMALL.key], looks, found)
    assert predicted.accuracy == pytest.approx(0.85)  # five points more than the look, as int8 had before
    assert predicted.latency_ms == pytest.approx(1.0)
    assert predicted.size_mb == pytest.approx(500e-6)


def test_a_net_that_was_evaluated_in_one_precision_is_expected_as_accurate_in_another():
    looks = {WHOLE.key: Look(0.90, 1e6, 1000), SMALL.key: Look(0.80, 5e5, 500)}
    found = [evaluated(WHOLE, "int8", 0.99, 2.0), evaluated(SMALL, "int8", 0.83, 1.0)]
    assert predict(Candidate(SMALL, "fp32"), looks[SMALL.key], looks, found).accuracy == 0.83


def test_the_most_accurate_is_evaluated_first_and_then_what_is_least_like_it():
    nets = [Net({"width": width}) for width in (2, 4, 8)]
    looks = {net.key: Look(0.9 + 0.01 * n, 1e6 * 4**n, 1000 * 4**n) for n, net in enumerate(nets)}
    candidates = [Candidate(net, "int8") for net in nets]
    first = choose_next(candidates, looks, [], least_accuracy=None)
    assert first == candidates[2]
    second = choose_next(candidates, looks, [evaluated(nets[2], "int8", 0.95, 4.0)], least_accuracy=None)
    assert second == candidates[0]
    # predicted at 93 %, the small one is below what the gate lets through: the middle one goes first
    spared = choose_next(candidates, looks, [evaluated(nets[2], "int8", 0.95, 4.0)], least_accuracy=0.935)
    assert spared == candidates[1]


def test_a_candidate_that_a_measured_point_beats_is_not_evaluated():
    looks = {WHOLE.key: Look(0.9, 1e6, 1000), SMALL.key: Look(0.8, 2e6, 2000)}
    done = [Evaluated(Candidate(WHOLE, "int8"), Costs(0.95, 1.0, 0.0005, 200.0), None)]
    assert choose_next([Candidate(SMALL, "int8")], looks, done, least_accuracy=None) is None


def test_costs_within_two_percent_do_not_beat_and_accuracy_does():
    point = Costs(0.9, 1.0, 1.0, 200.0)
    assert not beaten(point, [Costs(0.9, 0.999, 1.0, 200.0)])
    assert beaten(point, [Costs(0.9, 0.9, 1.0, 200.0)])
    assert beaten(point, [Costs(0.91, 1.0, 1.0, 200.0)])
    assert not beaten(point, [Costs(0.91, 1.0, 1.0, 300.0)])  # better, and it takes more memory


def test_the_front_holds_accepted_points_that_nothing_beats():
    good, slow = evaluated(SMALL, "int8", 0.9, 1.0), evaluated(WHOLE, "int8", 0.9, 2.0)
    failed = evaluated(SMALL, "fp32", 0.5, 0.1, failure="gate max_accuracy_drop failed")
    exact = evaluated(WHOLE, "fp32", 0.99, 3.0)
    assert front_of([exact, slow, failed, good]) == [good, exact]


def test_without_optuna_the_extra_is_named(trained_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingTool, match="optuna") as error:
        search_recipe(_recipe(trained_run, tmp_path), (), trained_run.runs)
    assert error.value.hint == "pip install 'emberline[search]'"


def test_a_recipe_without_a_search_section_is_told_so(trained_run):
    with pytest.raises(InvalidSetting, match=r"compress\.search is not given"):
        search_recipe(trained_run.recipe_path, (), trained_run.runs)


def test_an_argument_that_the_factory_does_not_take_is_named_with_those_it_takes(trained_run, tmp_path):
    pytest.importorskip("optuna")
    path = _recipe(trained_run, tmp_path, arguments={"breadth": [1]})
    with pytest.raises(InvalidSetting, match=r"'breadth'; an argument of .*digits_cnn, which takes width"):
        search_recipe(path, (), trained_run.runs)


def test_a_net_that_cannot_be_made_is_left_out_and_said(trained_run, tmp_path, capfd):
    pytest.importorskip("optuna")
    # half of at most 32 channels, in multiples of 64, is none at all
    path = _recipe(trained_run, tmp_path, arguments={}, prune=[0.5, 0.0], round_to=64)
    sought = Sought(open_job(path, (), trained_run.runs))
    records = Records(tmp_path, tmp_path / "found.json")
    assert list(walk(sought, records)) == ["as trained"]
    assert "prune=0.5: left out: ratio 0.5 with round_to 64 removed no channel" in capfd.readouterr().err
    assert list(walk(sought, records)) == ["as trained"]
    assert "look" not in capfd.readouterr().err  # both answers are on record


def test_a_net_that_its_factory_refuses_is_left_out_with_the_reason(trained_run, tmp_path, capfd):
    pytest.importorskip("optuna")
    path = _recipe(trained_run, tmp_path, arguments={"depth": [1, 3]})
    sought = Sought(open_job(path, (), trained_run.runs))
    records = Records(tmp_path, tmp_path / "found.json")
    assert list(walk(sought, records)) == ["as trained"]
    assert "depth=1: left out: failed with ValueError: depth 1; 2 or more is required" in capfd.readouterr().err


def test_rows_that_cannot_be_read_end_a_search_and_no_net_is_blamed(trained_run, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    rows = rows_from_arrays("pixels", np.zeros((4, 8, 8), np.float32), [0, 1, 2, 3])
    monkeypatch.setattr("emberline.data.source.load", lambda *_: Splits(rows.take([]), rows, rows))
    sought = Sought(open_job(_recipe(trained_run, tmp_path), (), trained_run.runs))
    records = Records(tmp_path, tmp_path / "found.json")
    with pytest.raises(EmberlineError, match="split 'train' has zero rows"):
        walk(sought, records)
    assert not records.path.exists()


@pytest.mark.long
def test_a_search_leaves_recipes_that_make_its_front_and_goes_on_where_it_was(compressed, tmp_path, capfd):
    pytest.importorskip("optuna")
    path = _recipe(compressed, tmp_path)
    search_recipe(path, ("compress.search.evaluations=1",), compressed.runs)
    assert "look 2/2" in capfd.readouterr().err
    search_recipe(path, (), compressed.runs)
    said = capfd.readouterr().err
    assert "look " not in said
    assert "evaluation 1/2" not in said
    assert "evaluation 2/2" in said
    folder = compressed.runs / "small" / "search"
    content = json.loads((folder / "front.json").read_bytes())
    assert content["evaluations"] == 2
    assert content["evaluations_per_accepted"] <= 10
    assert "point-" in (folder / "report.html").read_text()
    for point in content["front"]:
        made = load_recipe(Path(point["recipe"]))
        assert made.compress is not None
        assert made.compress.search is None
        assert made.compress.artifacts["int8"].stages[-1].max_batch == 8
        assert made.compress.artifacts["int8"].gates.max_accuracy_drop == 0.9


@pytest.mark.long
def test_a_search_whose_candidates_all_fail_says_by_which_gate(compressed, tmp_path):
    pytest.importorskip("optuna")
    path = _recipe(compressed, tmp_path)
    settings = ("compress.artifacts.int8.gates.min_speedup=1000", "compress.search.evaluations=1")
    with pytest.raises(StageFailed, match="none of 1 evaluated candidates passed the gates: gate min_speedup failed"):
        search_recipe(path, settings, compressed.runs)


def _recipe(run, folder: Path, **search) -> Path:
    """The small run's recipe, to be searched in short trainings: two nets, the trained one and half of it."""
    raw = yaml.safe_load(run.recipe_path.read_text())
    raw["compress"]["artifacts"]["int8"]["gates"] = {"max_accuracy_drop": 0.9}
    raw["compress"]["search"] = {
        "arguments": {"width": [8, 16]}, "prune": [0.0], "distill": [False], "precisions": ["int8"],
        "epochs": 1, "proxy_epochs": 1, "trials": 2, "evaluations": 2, **search,
    }  # fmt: skip
    path = folder / "searched.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path
