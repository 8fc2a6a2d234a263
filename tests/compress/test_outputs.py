"""Models of several outputs, and packages that are wrong at some batch sizes only."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from emberline import assets
from emberline.artifact import Package
from emberline.compress.agreement import largest_error, require_agreement, rounds_alike
from emberline.compress.probe import make_probe
from emberline.compress.state import State
from emberline.errors import StageFailed

probing = assets.handler_module("ember_probe")
backends = assets.handler_module("ember_backends")


class TwoHeads(nn.Module):
    def __init__(self, second: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.classes, self.box = nn.Linear(64, 16), nn.Linear(16, 10), nn.Linear(16, 4)
        self.second = second

    def forward(self, x):
        inner = torch.relu(self.body(x.flatten(1)))
        return {"classes": self.classes(inner), "box": self.second * self.box(inner)}


class WrongFromFiveRowsOn(nn.Module):
    def forward(self, x):
        return x.flatten(1) * (1 + x.shape[0] // 5)


def exported(module, folder, context) -> Package:
    rows = {0: torch.export.Dim("b", min=1, max=8)}
    with torch.no_grad():
        program = torch.export.export(module, context.example(2), dynamic_shapes=(rows,))
    torch.export.save(program, folder / "exported.pt2")
    return Package(file="exported.pt2", backend="exported", precision="fp32", max_batch=8)


def test_a_second_output_that_is_wrong_is_refused_and_named(trained_run, tmp_path):
    context, right = trained_run.context(), State(TwoHeads().eval())
    assert require_agreement(right, exported(TwoHeads(), tmp_path, context), tmp_path, context) < 1e-5
    with pytest.raises(StageFailed, match="away from its reference at batch 1, output 1"):
        require_agreement(right, exported(TwoHeads(1.5), tmp_path, context), tmp_path, context)


def test_a_package_that_is_right_for_one_row_and_wrong_for_seven_is_refused(trained_run, tmp_path):
    context, state = trained_run.context(), State(nn.Flatten().eval())
    package = exported(WrongFromFiveRowsOn(), tmp_path, context)
    with pytest.raises(StageFailed, match="1 away from its reference at batch 7"):
        require_agreement(state, package, tmp_path, context)


def test_the_probe_holds_every_output_and_the_loader_checks_each(trained_run, tmp_path):
    context, state = trained_run.context(), State(TwoHeads().eval())
    package = exported(TwoHeads(), tmp_path, context)
    probe = make_probe(state, (package,), tmp_path, context).model_dump(mode="json")
    assert [len(one) for one in (probe["expected"], *probe["more_expected"])] == [10, 4]
    described = {
        "packages": [package.model_dump(mode="json")],
        "preprocessing": trained_run.recipe.preprocessing.model_dump(mode="json"),
    }

    def reason(**changes):
        (tmp_path / "probe.json").write_text(json.dumps({**probe, **changes}))
        return probing.probe_here(tmp_path, described, described["packages"][0])

    assert reason() is None
    assert "(output 1)" in reason(more_expected=[[9.0] * 4])
    assert "2 outputs; 1 are expected" in reason(more_expected=[], more_tolerance=[])


def test_the_worst_output_counts_and_nan_is_worse_than_anything():
    one, half = np.ones((2, 3)), np.full((2, 3), 0.5)
    assert largest_error([one, half], [one, one]) == (0.5, ", output 1")
    assert np.isnan(largest_error([np.full((2, 3), np.nan), half], [one, one])[0])
    assert largest_error([one], [one, one])[0] == np.inf


def test_two_roundings_are_alike_when_apart_by_less_than_either_is_from_the_float_model():
    random = np.random.default_rng(0)
    exact, noise, ties = (random.standard_normal((8, 384)) for _ in range(3))
    rounded = exact + 0.28 * noise
    assert rounds_alike([rounded + 0.09 * ties], [rounded], [exact])
    assert not rounds_alike([rounded + 0.2 * ties], [rounded], [exact])
    # further from the float model than its program is: no tie does that
    assert not rounds_alike([rounded + 0.1 * noise], [rounded], [exact])
    assert not rounds_alike([rounded, exact + 0.09], [rounded, exact], [exact, exact])
    assert not rounds_alike([rounded * np.nan], [rounded], [exact])
    assert not rounds_alike([], [rounded], [exact])


def test_outputs_come_in_the_order_of_exported_programs():
    a, b, c = (torch.full((1,), value) for value in (1.0, 2.0, 3.0))
    assert backends.outputs_of({"z": a, "y": (b, [c])}) == [a, b, c]
