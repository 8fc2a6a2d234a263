import pytest

from emberline.compress.plan import choose_backends, plan
from emberline.compress.target import Target, this_machine
from emberline.errors import InvalidSetting
from emberline.recipe import Compress, Recipe, parse_model

MACHINE = Target(vnni=None, compiler=True)
INT8 = [
    {"stage": "prune", "ratio": 0.5},
    {"stage": "finetune", "epochs": 1},
    {"stage": "quantize"},
    {"stage": "export"},
]


def steps_of(stages, base="base", compress=None, **recipe):
    artifacts = {"fp32": {"stages": [{"stage": "export"}]}, "int8": {"stages": stages}}
    settings = parse_model(Compress, {"artifacts": artifacts, **(compress or {})}, "test")
    raw = {
        "run": "test",
        "model": {"factory": "m:f"},
        "data": {"source": "m:f"},
        "preprocessing": {"inputs": [{"name": "x", "shape": [4]}]},
        **recipe,
    }
    whole = parse_model(Recipe, raw, "test")
    variant = settings.artifacts["int8"]
    return plan("int8", variant, recipe=whole, settings=settings, base=base, backends=("aoti",))


def changed(before, after):
    return [new.name for old, new in zip(before, after, strict=True) if old.key != new.key]


def test_batch_norm_is_re_estimated_after_pruning_without_being_asked_for():
    assert [step.name for step in steps_of(INT8)] == ["prune", "batch_norm", "finetune", "quantize", "export"]


def test_a_changed_stage_repeats_itself_and_those_after_it():
    more_rows = [*INT8[:2], {"stage": "quantize", "calibration_rows": 64}, INT8[3]]
    assert changed(steps_of(INT8), steps_of(more_rows)) == ["quantize", "export"]


def test_another_largest_batch_quantizes_anew_and_trains_no_more():
    larger = [*INT8[:3], {"stage": "export", "max_batch": 128}]
    assert changed(steps_of(INT8), steps_of(larger)) == ["quantize", "export"]


def test_training_settings_matter_from_finetuning_on():
    assert changed(steps_of(INT8), steps_of(INT8, train={"batch_size": 32})) == ["finetune", "quantize", "export"]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_other_names_for_what_is_in_pictures_ask_for_another_probe_and_for_classes_they_do_not(task):
    pictures = {"preprocessing": {"inputs": [{"name": "x", "kind": "image", "shape": [3, 8, 8]}]}}
    before, after = (
        steps_of(INT8, **pictures, labels=[name, "other"], train={"task": task}) for name in ("cat", "dog")
    )
    assert changed(before, after) == ["export"]
    assert changed(steps_of(INT8, labels=["cat", "other"]), steps_of(INT8, labels=["dog", "other"])) == []


def test_widths_found_by_timing_depend_on_the_batch_and_threads_that_are_timed():
    timed = [{"stage": "prune", "round_to": "measured"}, *INT8[1:]]
    for settings in ({"batch_sizes": [2]}, {"threads": 2}):
        assert "prune" in changed(steps_of(timed), steps_of(timed, compress=settings))
        assert changed(steps_of(INT8), steps_of(INT8, compress=settings)) == ["export"]


def test_other_weights_change_everything():
    assert len(changed(steps_of(INT8), steps_of(INT8, base="other"))) == 5


@pytest.mark.parametrize(
    "stages", [[], INT8[:3], [INT8[3], *INT8[:3]], [INT8[2], INT8[1], INT8[3]], [INT8[3], INT8[3]]], ids=str
)
def test_stages_in_an_order_that_cannot_work_are_refused(stages):
    with pytest.raises(InvalidSetting, match=r"compress.artifacts.int8: stages is"):
        steps_of(stages)


def test_without_a_compiler_onnx_takes_the_place_and_the_reason_is_told():
    settings = parse_model(Compress, {"artifacts": {"fp32": {"stages": [{"stage": "export"}]}}}, "test")
    backends, because = choose_backends(settings.artifacts["fp32"], Target(vnni=None, compiler=False))
    assert backends == ("onnx",)
    assert "g++ is not installed" in because
    assert choose_backends(settings.artifacts["fp32"], MACHINE) == (("aoti",), None)
    both = Target(vnni=None, compiler=False, installed=("onnx", "openvino"))
    assert "ONNX Runtime and OpenVINO take its place" in choose_backends(settings.artifacts["fp32"], both)[1]


def test_whatever_is_installed_is_a_candidate_and_native_code_where_it_differs():
    settings = parse_model(Compress, {"artifacts": {"fp32": {"stages": [{"stage": "export"}]}}}, "test")
    narrow = Target(vnni=None, compiler=True, native=("sse4a",), installed=("openvino",))
    wide = Target(vnni=None, compiler=True, native=("avx512f",), installed=("onnx",))
    assert choose_backends(settings.artifacts["fp32"], narrow)[0] == ("aoti", "openvino")
    assert choose_backends(settings.artifacts["fp32"], wide)[0] == ("aoti", "aoti-native", "onnx")


def test_backends_named_by_the_recipe_are_taken_as_they_stand():
    stages = [{"stage": "export", "backends": ["aoti", "aoti-native"]}]
    settings = parse_model(Compress, {"artifacts": {"fp32": {"stages": stages}}}, "test")
    assert choose_backends(settings.artifacts["fp32"], MACHINE) == (("aoti", "aoti-native"), None)


def test_a_native_package_needs_all_that_its_compiler_could_use():
    target = Target(vnni="avx512_vnni", compiler=True, native=("avx512_vnni", "avx512f"))
    assert {"avx2", "avx512f", "avx512_vnni"} <= set(target.needs("fp32", native=True))
    assert "avx512f" not in target.needs("fp32")


def test_int8_for_any_cpu_is_calibrated_to_seven_bits_and_needs_no_vnni():
    assert this_machine("any-cpu").reduce_range
    assert this_machine("any-cpu").needs("int8") == this_machine("any-cpu").needs("fp32")


def test_a_machine_whose_onednn_may_not_use_vnni_is_one_without_it(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert this_machine().vnni is None
    assert this_machine().reduce_range


def test_a_baseline_with_fallbacks_is_refused():
    variant = {"stages": [{"stage": "export"}], "fallbacks": [[{"stage": "export"}]]}
    with pytest.raises(InvalidSetting, match="baseline 'fp32' has fallbacks"):
        parse_model(Compress, {"artifacts": {"fp32": variant}}, "test")


def test_int8_made_with_vnni_needs_it_and_without_it_is_calibrated_to_seven_bits():
    assert "avx512_vnni" in Target("avx512_vnni", compiler=True).needs("int8")
    assert "avx512_vnni" not in Target("avx512_vnni", compiler=True).needs("fp32")
    assert MACHINE.reduce_range
    assert not Target("avx_vnni", compiler=True).reduce_range


def test_a_student_that_would_undo_earlier_stages_is_refused():
    student = {"stage": "distill", "epochs": 1, "student": {"factory": "emberline.models.digits:digits_cnn"}}
    assert [step.name for step in steps_of([student, *INT8])][:2] == ["distill", "prune"]
    with pytest.raises(InvalidSetting, match="distill with a student once, as the first one") as error:
        steps_of([INT8[0], student, *INT8[1:]])
    assert "would be lost" in error.value.hint


def test_another_recording_of_a_teacher_is_another_lesson(tmp_path):
    recorded = tmp_path / "answers.parquet"
    stages = [{"stage": "distill", "epochs": 1, "recorded": str(recorded)}, *INT8]
    recorded.write_bytes(b"one")
    first = steps_of(stages)
    assert changed(first, steps_of(stages)) == []
    recorded.write_bytes(b"another")
    assert "distill" in changed(first, steps_of(stages))
