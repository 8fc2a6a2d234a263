from pathlib import Path

import numpy as np
import pytest

from emberline.artifact import Package
from emberline.compress import gates
from emberline.compress.chain import Done
from emberline.compress.choice import choose
from emberline.compress.verdicts import judge
from emberline.measure import Timing
from emberline.measure.session import Measured
from emberline.recipe import Compress, parse_model


def rows(lost: int, won: int, count: int):
    """Answers of a baseline and a candidate that disagree on `lost` + `won` of `count` rows."""
    baseline, candidate = np.ones(count, np.int64), np.ones(count, np.int64)
    candidate[:lost] = 0
    baseline[lost : lost + won] = 0
    return baseline, candidate


def test_the_bound_follows_the_equation_of_bonett_and_price():
    paired = gates.paired_drop(*rows(6, 2, 100))
    p_lost, p_won = 7 / 102, 3 / 102
    assert paired.drop == pytest.approx(0.04)
    assert paired.upper == pytest.approx(
        p_lost - p_won + 1.6449 * np.sqrt((p_lost + p_won - (p_lost - p_won) ** 2) / 102)
    )


def test_the_bound_covers_a_true_drop_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        kinds = random.choice(3, size=300, p=[0.05, 0.03, 0.92])  # lost, won, equal: a true drop of 0.02
        baseline, candidate = (kinds != 1).astype(np.int64), (kinds != 0).astype(np.int64)
        covered += gates.paired_drop(baseline, candidate).upper >= 0.02
    assert covered / 2000 >= 0.94


@pytest.mark.parametrize(
    ("lost", "won", "count", "verdict"),
    [
        (0, 0, 1000, "passed"),
        (5, 5, 5000, "passed"),
        (300, 10, 1000, "failed"),
        (12, 2, 1000, "inconclusive"),  # 1.0 points measured, 1.6 cannot be ruled out
        (3, 0, 60, "inconclusive"),  # 5 points measured, on too few rows to tell
        (0, 9, 80, "inconclusive"),  # a gain, on rows so few that the half-width is above the gate
    ],
)
def test_the_accuracy_gate_is_decided_by_the_bound(lost, won, count, verdict):
    assert gates.accuracy_gate(gates.paired_drop(*rows(lost, won, count)), 0.015).verdict == verdict


def test_an_inconclusive_gate_says_how_many_rows_it_needs():
    text = gates.accuracy_gate(gates.paired_drop(*rows(12, 2, 1000)), 0.015).text
    needed = int(text.rpartition("needs ")[2].split()[0])
    scale = needed // 1000 + 1
    assert gates.accuracy_gate(gates.paired_drop(*rows(12 * scale, 2 * scale, 1000 * scale)), 0.015).verdict == "passed"


def test_the_stage_with_the_largest_drop_is_named():
    assert gates.lost_by([("prune", 0.9), ("finetune", 0.95), ("quantize", 0.5), ("export", 0.49)])[0] == "quantize"


def settings(**wanted):
    stages = [{"stage": "export"}]
    artifacts = {"fp32": {"stages": stages}, "int8": {"stages": stages, "gates": wanted}}
    return parse_model(Compress, {"artifacts": artifacts, "batch_sizes": [1, 8]}, "test")


def measured(name, ms, correct):
    timings = tuple(
        Timing(batch, np.full(3, value), np.full(3, value)) for batch, value in zip((1, 8), ms, strict=True)
    )
    package = {"file": f"{name}.pt2", "backend": "aoti", "precision": "fp32"}
    return Measured(name, package, (), 1_000_000, timings, correct, memory_mb=300.0)


def verdict(candidate_ms, lost=0, stages=None, **wanted):
    baseline, candidate = rows(lost, 0, 1000)
    notes = stages or [("quantize", 1.0), ("export", 0.0)]
    done = [Done(name, Path(), 1.0, {"accuracy": accuracy}, cached=False) for name, accuracy in notes]
    asked = settings(**wanted)
    packages = [Package(file="int8.pt2", backend="aoti", precision="int8", max_batch=8)]
    leads = {"int8.pt2": measured("int8", candidate_ms, candidate)}
    against = measured("fp32", (2.0, 4.0), baseline)
    return judge(
        "int8",
        asked,
        baseline=against,
        choice=choose(packages, leads, asked.artifacts["int8"].gates, against),
        stages=done,
        machine="test",
    )


def test_a_slower_candidate_is_kept_with_a_warning_by_default():
    judged = verdict((1.0, 8.0))
    assert judged.failure is None
    assert judged.measurement.warnings == ("slower than the baseline at batch 8: 0.50x of its speed",)


@pytest.mark.parametrize(("factor", "said"), [(1.2, 0), (0.99, 0), (0.97, 1)])
def test_slower_is_what_is_beyond_the_noise_of_two_measurements(factor, said):
    assert len(gates.slower({1: factor})) == said


def test_a_slower_candidate_is_refused_where_the_recipe_says_so():
    judged = verdict((1.0, 8.0), on_slower="refuse")
    assert "slower than the baseline at batch 8" in str(judged.failure)


def test_a_speedup_below_its_gate_fails():
    assert "1.33x at batch 1; 2x required" in str(verdict((1.5, 1.0), min_speedup=2.0).failure)


def test_lost_accuracy_is_laid_at_the_door_of_the_stage_that_lost_it():
    judged = verdict((1.0, 1.0), lost=200, max_accuracy_drop=0.01)
    assert judged.failure.place == "int8, stage export"
    assert "export lost 20.0 points" in judged.failure.hint
    assert judged.measurement.accuracy_drop == pytest.approx(0.2)


def test_a_pruning_that_fine_tuning_repaired_is_not_blamed():
    stages = [("prune", 0.3), ("batch_norm", 0.8), ("finetune", 0.99), ("quantize", 0.81), ("export", 0.0)]
    judged = verdict((1.0, 1.0), lost=200, stages=stages, max_accuracy_drop=0.01)
    assert judged.failure.place == "int8, stage quantize"


def test_a_pruning_that_nothing_repaired_is_blamed():
    stages = [("prune", 0.3), ("batch_norm", 0.7), ("finetune", 0.8), ("quantize", 0.8), ("export", 0.0)]
    judged = verdict((1.0, 1.0), lost=200, stages=stages, max_accuracy_drop=0.01)
    assert judged.failure.place == "int8, stage prune"


def test_more_memory_than_its_gate_fails():
    assert "300 MB at the peak, PyTorch included; 200 MB allowed" in str(verdict((1.0, 1.0), max_memory_mb=200).failure)
    assert verdict((1.0, 1.0), max_memory_mb=400).failure is None


def test_a_peak_that_could_not_be_taken_is_no_pass():
    assert gates.memory_gate(None, 100).verdict == "inconclusive"
