"""Packages for a GPU, as far as their logic goes without one; none of this shows how fast they are there."""

import zipfile

import pytest
import torch

from emberline import assets
from emberline.artifact import Package
from emberline.compress import gpu, kernels
from emberline.compress.masks import is_two_of_four
from emberline.compress.plan import choose_backends
from emberline.compress.stages.export import export
from emberline.compress.stages.prune import prune
from emberline.compress.stages.quantize import quantize
from emberline.compress.state import State
from emberline.compress.target import Target, parse_capability
from emberline.errors import EmberlineError, InvalidCombination, InvalidSetting, MissingTool, StageFailed
from emberline.models.mlp import mlp
from emberline.recipe import Export, Prune, Quantize, load_recipe

loader = assets.handler_module("ember_packages")
ON_GPU = ("compress.device=cuda", "compress.artifacts.fp32.stages=[{stage: export}]")
FLOAT = "compress.artifacts.int8.stages=[{stage: export}]"
SMOOTH = "compress.artifacts.int8.stages=[{stage: quantize, precision: int8_dynamic, smooth: 0.5}, {stage: export}]"
MEASURED = "compress.artifacts.int8.stages=[{stage: prune, round_to: measured}, {stage: export}]"


@pytest.mark.parametrize(("told", "capability"), [("9.0", (9, 0)), ("12.1\n", (12, 1)), ("[N/A]", None), ("", None)])
def test_the_drivers_answer_is_read_or_refused(told, capability):
    assert parse_capability(told) == capability


@pytest.mark.parametrize(
    ("capability", "kind", "architecture"),
    [((9, 0), "fp8", "sm_90"), ((8, 9), "fp8", "sm_89"), ((8, 0), "2:4", "sm_80")],
)
def test_a_gpu_that_knows_the_precision_is_named_as_compilers_name_it(capability, kind, architecture):
    assert gpu.require(capability, kind) == architecture


def test_an_older_gpu_is_refused_with_what_it_lacks():
    with pytest.raises(StageFailed, match="fp8 needs a GPU of sm_89 or later; this one is sm_80"):
        gpu.require((8, 0), "fp8")


def test_device_cuda_exports_for_it_alone(trained_run):
    settings = load_recipe(
        trained_run.recipe_path, [*ON_GPU, "compress.artifacts.int8.stages=[{stage: export}]"]
    ).compress
    target = Target(vnni=None, compiler=True, device="cuda", capability=(9, 0), installed=("onnx",))
    assert choose_backends(settings.artifacts["fp32"], target) == (("aoti-cuda",), None)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (ON_GPU, "artifacts.int8: precision int8 is for the CPU alone"),
        (("compress.device=cuda",), "backend aoti is not for device cuda"),
        (("compress.artifacts.int8.stages.2={stage: quantize, precision: fp8}",), "fp8 is for GPUs alone"),
        (("compress.artifacts.fp32.stages.0.backends=[aoti-cuda]",), "backend aoti-cuda is not for device cpu"),
        (("compress.artifacts.int8.stages.2={stage: quantize, precision: fp8, smooth: 0.5}",), "smooth does nothing"),
        ((*ON_GPU, SMOOTH), "artifacts.int8: smooth does nothing with device cuda"),
        ((*ON_GPU, MEASURED), "artifacts.int8: round_to: measured times on the CPU"),
        ((*ON_GPU, FLOAT, "compress.search={}"), "search.precisions has int8, which is for the CPU alone"),
    ],
)
def test_stages_that_are_not_for_the_device_are_refused_before_anything_runs(trained_run, settings, text):
    with pytest.raises(InvalidCombination, match=text):
        load_recipe(trained_run.recipe_path, settings)


def test_without_a_gpu_it_is_said_what_is_missing(trained_run, tmp_path):
    context = trained_run.context()
    context.backends, context.scratch = ("aoti-cuda",), tmp_path / "work"
    state = State(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval())
    with pytest.raises(MissingTool, match="NVIDIA GPU"):
        quantize(state, Quantize(stage="quantize", precision="fp8"), context)
    with pytest.raises(MissingTool, match="NVIDIA GPU"):
        export(state, Export(stage="export", backends=("aoti-cuda",), max_batch=8), context)


def test_fp8_promises_linear_layers_and_leaves_out_those_that_are_skipped(trained_run):
    context = trained_run.context()
    context.target = Target(vnni=None, compiler=True, device="cuda", capability=(8, 9))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    after = quantize(State(net.eval()), Quantize(stage="quantize", precision="fp8", skip_layers=("3",)), context)
    assert (after.precision, after.int8_layers, after.quantized) == ("fp8", ("1",), None)


def test_a_skipped_parent_keeps_all_its_layers_out_of_fp8(trained_run):
    context = trained_run.context()
    context.target = Target(vnni=None, compiler=True, device="cuda", capability=(8, 9))
    net = torch.nn.Sequential(torch.nn.Flatten(), mlp(64, 32, (32,)), torch.nn.Linear(32, 10)).eval()
    after = quantize(State(net), Quantize(stage="quantize", precision="fp8", skip_layers=("1",)), context)
    assert after.int8_layers == ("2",)
    with pytest.raises(InvalidSetting, match="skip_layers is '0'; a layer that would be fp8"):
        quantize(State(net), Quantize(stage="quantize", precision="fp8", skip_layers=("0",)), context)


def test_two_of_four_zeros_become_sparse_kernels_in_halves_alone(trained_run):
    context = trained_run.context()
    state = prune(State(trained_run_net()), Prune(stage="prune", method="2:4"), context)
    assert is_two_of_four(state.model, state.masked)
    assert gpu.is_sparse(state.masked, "bf16") == (True, None)
    sparse, reason = gpu.is_sparse(state.masked, "fp8")
    assert not sparse
    assert "stay dense in fp8" in reason
    with torch.no_grad():
        state.model.get_submodule(state.masked[0]).weight[0] = 1.0
    assert not is_two_of_four(state.model, state.masked)


def trained_run_net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), mlp(64, 10, (32,))).eval()


def test_8_bit_kernels_are_counted_in_a_package_for_a_gpu(tmp_path):
    source = (
        b"AOTI(aoti_torch_cuda__scaled_mm_out(b, a)); AOTI(aoti_torch_cuda__int_mm_out(c)); aoti_torch_cuda_mm_out(d);"
    )
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as package:
        package.writestr("model/data/aotinductor/x.wrapper.cpp", source)
    assert kernels.count_kernels(tmp_path / "a.pt2") == 2


def test_a_worker_on_the_cpu_passes_over_a_package_for_a_gpu(tmp_path):
    (tmp_path / "fp8.sm_90.pt2").write_bytes(b"")
    package = Package(file="fp8.sm_90.pt2", backend="aoti-cuda", precision="fp8", max_batch=8, needs=("sm_90",))
    assert loader.unfit(tmp_path, package.model_dump()) == (
        "is made for a GPU of sm_90; this worker's model is on the CPU"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: this needs one")
@pytest.mark.parametrize("precision", ["int8_dynamic", "fp8", "bf16"])
def test_a_package_for_this_gpu_answers_as_the_float_model(trained_run, tmp_path, precision, monkeypatch):
    monkeypatch.setenv("EMBERLINE_DEVICE", "cuda:0")
    context = trained_run.context()
    context.backends, context.scratch = ("aoti-cuda",), tmp_path / "work"
    context.target = Target(vnni=None, compiler=True, device="cuda", capability=torch.cuda.get_device_capability())
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))
    try:
        state = quantize(State(net.eval()), Quantize(stage="quantize", precision=precision), context)
    except EmberlineError as error:
        pytest.skip(error.fact)
    made = export(state, Export(stage="export", backends=("aoti-cuda",), max_batch=8), context)
    assert made.packages[0].backend == "aoti-cuda"
