"""The Experiment as a file, and as the rows it asks for."""

from pathlib import Path

import pytest
import yaml

from emberline.errors import InvalidSetting, UnknownKey
from emberline.experiment import (
    Status,
    Window,
    load_experiment,
    load_experiments,
    parse_experiment,
    read_folder,
    status_path,
    to_yaml,
    write_status,
)

SPEC = {
    "model": "digits",
    "variants": [{"name": "int8", "version": "1.1"}, {"name": "fp32", "version": "1.0", "control": True}],
    "primary": {"metric": "correct", "margin": -0.02},
    "ramp": [{"shadow": 1.0}, {"weight": 500, "until": {"max_wait": "2h"}}, {"weight": 5000}],
}


def parsed(status=None, **changes):
    document = {"apiVersion": "emberline.dev/v1", "kind": "Experiment", "metadata": {"name": "trial"}}
    return parse_experiment({**document, "spec": {**SPEC, **changes}, "status": status or {}}, Path("trial.yaml"))


def test_the_demos_experiment_is_one(root):
    experiment = load_experiment(root / "recipes" / "digits.experiment.yaml")
    assert [variant.control for variant in experiment.spec.variants] == [False, True]
    assert experiment.weights == (0, 10_000)


def test_durations_are_seconds():
    assert parsed().spec.ramp[1].until.max_wait == 7200.0


ERROR = {"metric": "error", "kind": "rate", "max_increase": 0.1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variants": SPEC["variants"][::-1]}, "treatments come first"),
        ({"variants": [{**SPEC["variants"][0], "name": "fp32"}, SPEC["variants"][1]]}, "names of their own"),
        ({"primary": {"metric": "error", "margin": -0.01}}, "less of `error` is better"),
        ({"primary": {"metric": "latency_ms", "kind": "exceedance", "above": 50}}, "less of `latency_ms` is better"),
        ({"guardrails": [ERROR, {**ERROR, "max_increase": 0.2}]}, "`guardrails` names error of kind: rate twice"),
        ({"secondary": [{"metric": "clicks"}, {"metric": "clicks"}]}, "`secondary` names clicks of kind: rate twice"),
        ({"ramp": [{"weight": 5000}, {"weight": 500}]}, "never fall"),
        ({"ramp": [{"shadow": 1.0}]}, "at least one step with a weight"),
        ({"ramp": [{"weight": 500}, {"shadow": 1.0}]}, "the last step of a ramp has a weight"),
        ({"ramp": [{"weight": 10_000}]}, "no control to compare with"),
        ({"ramp": [{"weight": 500, "shadow": 1.0}]}, "either `shadow` or `weight`"),
        ({"ramp": [{"weight": 500, "until": {"max_wait": "soon"}}]}, "a duration such as"),
        ({"primary": {"metric": "latency_ms", "kind": "exceedance"}}, "`above` belongs to"),
        ({"alpha": 1.0}, "less than 1"),
        ({"primary": {"metric": "correct", "margin": float("nan")}}, "finite"),
        ({"primary": {"metric": "correct", "margin": float("-inf")}}, "finite"),
        ({"planned_units": 1}, "2 or more is required"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(changes, words):
    with pytest.raises(InvalidSetting, match=words):
        parsed(**changes)


def test_a_version_may_compete_with_itself():
    variants = [{**SPEC["variants"][0], "version": "1.0"}, SPEC["variants"][1]]
    assert {variant.version for variant in parsed(variants=variants).spec.variants} == {"1.0"}


def test_one_latency_may_have_guardrails_above_several_bounds():
    slow = {"metric": "latency_ms", "kind": "exceedance", "max_increase": 0.01}
    assert len(parsed(guardrails=[{**slow, "above": 50}, {**slow, "above": 200}]).spec.guardrails) == 2


def test_an_unknown_key_names_the_nearest_known_one():
    with pytest.raises(UnknownKey) as caught:
        parsed(guardrail=[])
    assert "guardrails" in caught.value.hint


def test_a_status_survives_its_file(tmp_path):
    (tmp_path / "trial.yaml").write_text(to_yaml(parsed()))
    judged = Window(config_version="trial-1-abc", step=1, since=1.5, until=2.5)
    status = Status(phase="Shipped", step=1, weights={"int8": 10_000, "fp32": 0}, revision=3, judged=judged)
    write_status(tmp_path, "trial", status)
    (loaded,) = load_experiments(tmp_path)
    assert loaded.status == status
    assert loaded.spec == parsed().spec


def test_one_that_is_taken_away_with_its_status_while_it_is_read_is_not_about_to_begin(tmp_path, root, monkeypatch):
    path = tmp_path / "digits-int8.yaml"
    path.write_bytes((root / "recipes/digits.experiment.yaml").read_bytes())

    def taken_away(folder, name):
        path.unlink()
        return status_path(folder, name)

    monkeypatch.setattr("emberline.experiment.folder.status_path", taken_away)
    assert not read_folder(tmp_path).experiments


def test_a_status_that_is_no_json_is_named(tmp_path):
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump({**yaml.safe_load(to_yaml(parsed()))}))
    status_path(tmp_path, "trial").write_text("{")
    with pytest.raises(InvalidSetting, match=r"trial\.status\.json"):
        load_experiment(tmp_path / "trial.yaml")


def test_the_configuration_changes_with_revision_and_spec():
    versions = {parsed({"revision": 1}).config_version, parsed({"revision": 2}).config_version}
    versions.add(parsed({"revision": 1}, alpha=0.1).config_version)
    assert len(versions) == 3


def test_rows_count_from_the_confirmation_on():
    assert parsed().window is None
    assert parsed({"phase": "Ramping", "step": 1, "revision": 2}).window is None
    running = parsed({"phase": "Ramping", "step": 1, "revision": 2, "since": 5.0})
    assert running.window == Window(config_version=running.config_version, step=1, since=5.0)


def test_an_ended_experiment_keeps_the_rows_it_was_judged_on():
    judged = {"config_version": "trial-3-x", "step": 2, "since": 1.0, "until": 2.0}
    ended = parsed({"phase": "RolledBack", "revision": 4, "since": 9.0, "judged": judged})
    assert ended.terminal
    assert ended.window == Window(**judged)
