"""Which package leads a chain, from what was measured."""

import numpy as np
import pytest

from emberline.artifact import Package
from emberline.compress.choice import choose
from emberline.measure import Timing
from emberline.measure.session import Measured
from emberline.recipe import Gates

ROWS = 2000
ANSWERED = np.ones(ROWS, np.int64)
PACKAGES = [
    Package(file="int8.native.pt2", backend="aoti", precision="int8", max_batch=8, march="native"),
    Package(file="int8.pt2", backend="aoti", precision="int8", max_batch=8, march="x86-64-v3"),
    Package(file="int8.onnx", backend="onnx", precision="int8", max_batch=8),
    Package(file="int8.openvino", backend="openvino", precision="int8", max_batch=8),
    Package(file="exported.pt2", backend="exported", precision="fp32", max_batch=8),
]
GATE = Gates(max_accuracy_drop=0.02)


def measured(file, at_one, at_eight, lost=0, size=1000):
    timings = tuple(Timing(batch, np.full(3, ms), np.full(3, ms)) for batch, ms in ((1, at_one), (8, at_eight)))
    correct = ANSWERED.copy()
    correct[:lost] = 0
    package = next(one for one in PACKAGES if one.file == file)
    return Measured(f"int8/{file}", package.model_dump(mode="json"), (), size, timings, correct)


BASELINE = measured("exported.pt2", 4.0, 16.0)


def chosen(*those, gate=GATE):
    return choose(PACKAGES, {one.package["file"]: one for one in those}, gate, BASELINE)


ALL = (
    measured("int8.native.pt2", 2.0, 8.0),
    measured("int8.pt2", 2.1, 8.1),
    measured("int8.onnx", 1.0, 20.0),
    measured("int8.openvino", 1.5, 6.0),
)


def test_the_fastest_over_all_batch_sizes_leads_and_our_own_stays_beside_it():
    choice = chosen(*ALL)
    assert choice.leads.package["file"] == "int8.openvino"  # onnx is faster at 1 and slower over both
    files = [package.file for package in choice.chain]
    assert files == ["int8.openvino", "int8.native.pt2", "int8.pt2", "int8.onnx", "exported.pt2"]
    assert [one.file for one in choice.measured if one.chosen] == ["int8.openvino"]


def test_a_package_that_fails_the_accuracy_gate_neither_leads_nor_stays():
    fast_and_wrong = measured("int8.onnx", 0.1, 0.1, lost=400)
    choice = chosen(ALL[1], fast_and_wrong)
    assert choice.leads.package["file"] == "int8.pt2"
    assert "int8.onnx" not in [package.file for package in choice.chain]
    assert choice.refused[0].startswith("int8.onnx leaves the chain: drop 20.00 points")


def test_where_all_fail_the_gate_the_failure_is_told_and_not_hidden():
    choice = chosen(measured("int8.pt2", 2, 2, lost=500), measured("int8.onnx", 1, 1, lost=400))
    assert choice.leads.package["file"] == "int8.onnx"
    assert [one.verdict for one in choice.outcomes] == ["failed"]


def test_without_an_accuracy_gate_speed_alone_decides():
    choice = chosen(measured("int8.onnx", 0.1, 0.1, lost=400), ALL[1], gate=Gates())
    assert (choice.leads.package["file"], choice.outcomes) == ("int8.onnx", ())


def test_the_fastest_of_those_that_pass_every_gate_leads_and_a_faster_one_that_is_too_large_stays_behind_it():
    large, small = measured("int8.onnx", 1, 1, size=5_400_000), measured("int8.pt2", 2, 2, size=4_600_000)
    choice = chosen(large, small, gate=Gates(max_accuracy_drop=0.02, max_size_mb=5))
    assert choice.leads.package["file"] == "int8.pt2"
    assert {one.verdict for one in choice.outcomes} == {"passed"}
    assert choice.refused == ("int8.onnx does not lead: 5.400 MB; 5 MB allowed",)
    assert "int8.onnx" in [package.file for package in choice.chain]


def test_a_package_that_passes_leads_before_a_faster_one_that_is_not_sure_to():
    unsure, sure = measured("int8.onnx", 1, 1, lost=36), measured("int8.pt2", 2, 2)
    assert chosen(unsure, sure).leads.package["file"] == "int8.pt2"
    assert chosen(unsure, measured("int8.pt2", 2, 2, lost=400)).leads.package["file"] == "int8.onnx"


def test_a_package_slower_than_the_baseline_does_not_lead_where_that_is_refused():
    slow, fast = measured("int8.onnx", 0.5, 20), measured("int8.pt2", 3.8, 15)
    choice = chosen(slow, fast, gate=Gates(on_slower="refuse"))
    assert choice.leads.package["file"] == "int8.pt2"
    assert "slower than the baseline at batch 8" in choice.refused[0]


def test_where_every_package_fails_a_gate_one_that_keeps_its_accuracy_leads():
    wrong, large = measured("int8.onnx", 1, 1, lost=400), measured("int8.pt2", 2, 2, size=9_000_000)
    choice = chosen(wrong, large, gate=Gates(max_accuracy_drop=0.02, max_size_mb=5))
    assert choice.leads.package["file"] == "int8.pt2"
    assert [one.gate for one in choice.outcomes if one.verdict == "failed"] == ["max_size_mb"]


def test_every_measurement_is_kept_with_its_drop():
    kept = {one.file: one for one in chosen(ALL[0], measured("int8.pt2", 3, 3, lost=10)).measured}
    assert kept["int8.pt2"].accuracy_drop == pytest.approx(10 / ROWS)
    assert [latency.batch for latency in kept["int8.native.pt2"].latencies] == [1, 8]
