"""All backends that are installed, built for one net, and the chain they make."""

import json
import shutil

import numpy as np
import pytest
import torch

from emberline import assets
from emberline.compress.backends import openvino
from emberline.compress.program import trace
from emberline.compress.run import compress_recipe
from emberline.compress.stages.quantize import quantize
from emberline.compress.state import State
from emberline.models.digits import digits_cnn
from emberline.recipe import Quantize

loader = assets.handler_module("ember_packages")
ALL = ["aoti", "aoti-native", "onnx", "openvino"]


@pytest.mark.long
def test_openvino_makes_int8_of_every_layer_and_agrees_at_every_batch(trained_run, tmp_path):
    pytest.importorskip("nncf")
    context = trained_run.context()
    state = quantize(State(digits_cnn(8).eval()), Quantize(stage="quantize", calibration_rows=64), context)
    package = openvino.convert_package(state, trace(state.model, context, stage="export"), tmp_path, 8, context)
    assert (package.backend, package.precision, package.int8_kernels) == ("openvino", "int8", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.openvino"]
    program = loader.open_program(tmp_path, package.model_dump(mode="json"), print)
    for rows in (1, 3, 8):
        example = context.example(rows)
        with torch.no_grad():
            expected = state.model(*example).numpy()
        (got,) = program([array.numpy() for array in example])
        assert np.linalg.norm(got - expected) < 0.15 * np.linalg.norm(expected)


@pytest.mark.long
def test_the_fastest_of_all_backends_leads_and_the_chain_ends_at_the_exported_program(trained_run, tmp_path):
    pytest.importorskip("nncf")
    shutil.copytree(trained_run.runs / "small" / "artifacts" / "trained", tmp_path / "small" / "artifacts" / "trained")
    chosen = [f"compress.artifacts.{name}.stages.{last}.backends={ALL}" for name, last in (("fp32", 0), ("int8", 3))]
    compress_recipe(trained_run.recipe_path, chosen, tmp_path)
    folder = tmp_path / "small" / "artifacts" / "int8"
    described = json.loads((folder / "artifact.json").read_bytes())
    measured = described["measurement"]["packages"]
    assert {one["backend"] for one in measured} == {"aoti", "onnx", "openvino"}
    means = {one["file"]: np.prod([latency["wall_ms"] for latency in one["latencies"]]) for one in measured}
    assert described["packages"][0]["file"] == min(means, key=means.get)
    assert described["packages"][-1]["file"] == "exported.pt2"
    native = next(one for one in described["packages"] if one["march"] == "native")
    others = [one for one in described["packages"] if one["backend"] != "aoti"]
    # as on another CPU, with another torch: native, then portable, are passed over for the next that can run
    native["needs"] = ["avx9"]
    portable = next(one for one in described["packages"] if one["march"] == "x86-64-v3")
    portable["torch"] = "1.0"
    described["packages"] = [native, portable, *others]
    model = loader.load(folder, described, report=print)
    assert [line.split(":")[0] for line in model.skipped] == ["int8.native.pt2", "int8.pt2"]
    assert model.package["backend"] in {"onnx", "openvino"}
