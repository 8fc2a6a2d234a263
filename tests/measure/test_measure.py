import subprocess
import sys
import time

import numpy as np
import pytest

from emberline import assets
from emberline.errors import EmberlineError, InvalidOption, StageFailed
from emberline.measure import Candidate, Timing, measure, speedup
from emberline.measure.artifacts import measure_artifacts
from emberline.measure.batches import batches_of, longest_of, unpadded
from emberline.measure.worker import time_interleaved


def candidates(folders, description):
    return [Candidate(folder.name, folder, description(folder)) for folder in folders]


def test_a_larger_net_is_measured_slower_and_every_round_is_kept(small_and_large, description):
    measured = measure(candidates(small_and_large, description), (1, 16), rounds=7)
    for batch in (1, 16):
        small, large = measured["small"].timing(batch), measured["large"].timing(batch)
        assert len(small.wall_ms) == len(small.cpu_ms) == 7
        assert speedup(small, large) < 1 < speedup(large, small)
    assert measured["small"].size_bytes == (small_and_large[0] / "exported.pt2").stat().st_size


def test_rows_are_scored_by_the_package_itself(small_and_large, description):
    inputs = np.random.default_rng(0).normal(size=(37, 6)).astype(np.float32)
    labels = np.arange(37) % 3
    truth = measure(candidates(small_and_large, description), (1,), rounds=1, inputs=(inputs,), labels=labels)
    loader, described = assets.handler_module("ember_packages"), description(small_and_large[0])
    assets.handler_module("ember_preprocessing")
    answers = loader.load(small_and_large[0], described, report=print)((inputs,))[0].argmax(axis=1)
    assert truth["small"].correct.tolist() == (answers == labels).astype(int).tolist()
    assert 0 < truth["small"].correct.sum() < 37


def test_the_peak_of_memory_does_not_grow_with_the_rows_that_are_scored(small_and_large, description):
    few, many = (np.zeros((count, 6), np.float32) for count in (37, 6_000_000))  # the larger of 144 MB
    peaks = [
        measure(candidates(small_and_large[:1], description), (1,), rounds=1, inputs=(rows,))["small"].memory_mb
        for rows in (few, many)
    ]
    assert peaks[1] == pytest.approx(peaks[0], abs=40)


def test_speedup_is_the_median_of_rounds_not_the_ratio_of_medians():
    baseline = Timing(1, np.array([10.0, 100.0, 10.0]), np.zeros(3))
    candidate = Timing(1, np.array([5.0, 50.0, 20.0]), np.zeros(3))
    assert speedup(baseline, candidate) == 2.0


def test_spread_is_the_distance_between_quartiles():
    assert Timing(1, np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.zeros(5)).spread_ms == 2.0


def test_a_candidate_that_cannot_load_fails_the_measurement_with_its_reason(small_and_large, description):
    broken = description(small_and_large[0])
    broken["packages"][0]["needs"] = ["avx9"]
    with pytest.raises(StageFailed, match="this CPU lacks avx9"):
        measure([Candidate("small", small_and_large[0], broken)], (1,), rounds=1)


def test_the_measuring_process_imports_no_compiler():
    asked = (
        "import sys, emberline.measure.worker; "
        "print(any(name.startswith(('torch._dynamo', 'torch._inductor')) for name in sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", asked], text=True).strip() == "False"


def test_the_verb_prints_one_line_an_artifact_and_batch(small_and_large, capsys):
    measure_artifacts(small_and_large, rounds=2, batch_sizes=(1, 16), threads=1)
    lines = capsys.readouterr().out.splitlines()
    assert sum("exported fp32" in line for line in lines) == 4


def test_a_folder_that_is_no_artifact_is_named(tmp_path):
    with pytest.raises(EmberlineError, match=str(tmp_path)):
        measure_artifacts([tmp_path], rounds=1, batch_sizes=(1,), threads=1)


def test_modules_and_single_packages_are_measured_beside_artifacts(small_and_large, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("import torch\n\ndef net():\n    return torch.nn.Linear(6, 3)\n")
    monkeypatch.chdir(tmp_path)
    small = small_and_large[0]
    given = [str(small), str(small / "exported.pt2"), "mine:net"]
    measured = measure_artifacts(given, rounds=2, batch_sizes=(1, 4), threads=1)
    assert [one.package["backend"] for one in measured.values()] == ["exported", "exported", "eager"]
    assert measured["mine:net"].size_bytes == 4 * (6 * 3 + 3)
    assert all(one.memory_mb > 50 for one in measured.values())


@pytest.mark.parametrize(
    ("given", "inputs", "complaint"),
    [
        (["mine:net"], (), "no rows of their own"),
        (["mine:net"], ("photo",), "dtype:shape of one row"),
        (["nowhere.pt2"], (), "nowhere.pt2"),
    ],
)
def test_what_cannot_be_measured_is_told_why(given, inputs, complaint):
    with pytest.raises(EmberlineError, match=complaint):
        measure_artifacts(given, rounds=1, batch_sizes=(1,), threads=1, inputs=inputs)


def test_an_option_for_modules_is_refused_where_there_are_none(small_and_large):
    with pytest.raises(InvalidOption, match="--compiled is True; a module beside the artifacts"):
        measure_artifacts(small_and_large, rounds=1, batch_sizes=(1,), threads=1, compiled=True)


def test_texts_are_timed_at_the_lengths_of_the_data_and_modules_without_padding():
    ids = np.zeros((100, 40), np.int64)
    for row in range(100):
        ids[row, : 1 + row % 40] = 7
    alone = batches_of((ids,), 1, [0])
    lengths = [unpadded(batch, [0])[0].shape for batch in alone]
    assert len(alone) == 64
    assert all(batch[0].shape == (1, 40) for batch in alone)
    assert {tokens for _, tokens in lengths} >= {1, 38}
    assert np.mean([tokens for _, tokens in lengths]) == pytest.approx((ids != 0).sum(1).mean(), abs=0.5)
    for (batch,) in batches_of((ids,), 8, [0]):
        assert unpadded((batch,), [0])[0].shape == (8, (batch != 0).sum(1).max())
    eights = batches_of((ids,), 8, [0])
    most = max((batch != 0).sum(1).max() for (batch,) in eights)
    assert (longest_of(eights, [0])[0] != 0).sum(1).max() == most
    (only,) = batches_of((ids,), 8, [])
    assert np.array_equal(only[0], ids[:8])


def test_slow_candidates_get_fewer_rounds_and_never_below_seven():
    def slow(_batch):
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        return ()

    (timing,) = time_interleaved([slow], [[(np.zeros(1),)]], rounds=40, budget_s=0.01)
    assert len(timing["wall_ms"]) == 7


RECIPE = """
run: numbers
model: {factory: "torch.nn:Identity"}
data: {source: "rows_of_mine:numbers", arguments: {count: 20}}
preprocessing: {inputs: [{name: x, shape: [6]}]}
labels: [a, b, c]
"""
SOURCE = """
import numpy as np
from emberline.data import Splits, rows_from_arrays

def numbers(count):
    def rows(count):
        values = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
        return rows_from_arrays("x", values, np.arange(count) % 3)
    return Splits(rows(5), rows(count), rows(1))
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "rows_of_mine.py").write_text(SOURCE)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_gives_its_validation_rows_and_the_accuracy_on_them_is_told(small_and_large, recipe, capsys):
    settings = ["data.arguments.count=40"]
    measured = measure_artifacts(
        [str(small_and_large[0])], rounds=2, batch_sizes=(1,), threads=1, recipe=recipe, settings=settings
    )
    correct = measured["small"].correct
    assert len(correct) == 40
    assert f"{correct.mean():.2%}" in capsys.readouterr().out


@pytest.mark.parametrize("beside", [{"inputs": ["float32:6"]}, {"recipe": None, "settings": ["seed=1"]}])
def test_options_that_exclude_each_other_are_refused(small_and_large, recipe, beside):
    with pytest.raises(InvalidOption, match="--recipe"):
        measure_artifacts(
            [str(small_and_large[0])], rounds=1, batch_sizes=(1,), threads=1, **{"recipe": recipe, **beside}
        )
