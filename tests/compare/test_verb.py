"""`emberline compare` and `emberline plan` as a user calls them."""

import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import orjson
import pytest
import yaml

from emberline.assets import folder as shipped
from emberline.compare.chart import Point, interval_chart
from emberline.compare.history import read_looks
from emberline.compare.verb import compare_experiments, find_experiment
from emberline.errors import InvalidSetting
from emberline.experiment import load_experiment, write_status


def emberline(*arguments, cwd):
    command = [sys.executable, "-m", "emberline.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def placed(made, traffic, tmp_path):
    """An experiment at its last step, with traffic, as `up` leaves them."""
    folder = tmp_path / "state" / "experiments"
    folder.mkdir(parents=True)
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(made.document()))
    running = made.in_step(2)
    write_status(folder, "trial", running.status)
    traffic.send(running, 600, correct=(0.9, 0.9))
    return path


@pytest.mark.usefixtures("placed")
def test_compare_prints_arms_metrics_and_verdict_and_leaves_a_report(tmp_path):
    done = emberline("compare", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("trial: Ramping, step 3", "int8", "fp32", "latency_ms > 50", "sample ratio", "verdict:"):
        assert words in done.stdout
    report = tmp_path / "report" / "trial"
    assessment = orjson.loads((report / "assessment.json").read_bytes())
    assert assessment["verdict"] in {"running", "ship", "stop", "inconclusive"}  # the data say which
    assert f"verdict: {assessment['verdict']}" in done.stdout
    page = (report / "index.html").read_text()
    assert "<svg" in page
    for svg in report.glob("*.svg"):
        ET.parse(svg)


def test_the_page_needs_no_network_and_carries_both_colour_schemes(placed, tmp_path):
    ((_, page),) = compare_experiments([placed], tmp_path / "data", tmp_path / "report", placed.parent)
    text = page.read_text()
    assert not re.findall(r"(?:src|href)\s*=|@import|url\(", text)
    assert "prefers-color-scheme:dark" in text
    assert "width=device-width" in text


def test_a_reason_cannot_become_markup(made, placed, tmp_path):
    reason = {**load_experiment(placed).status.model_dump(), "reason": "<script>alert(1)</script>"}
    write_status(placed.parent, "trial", made.experiment(status=reason).status)
    ((_, page),) = compare_experiments([placed], tmp_path / "data", tmp_path / "report", placed.parent)
    assert "<script>" not in page.read_text()


def test_an_experiment_file_elsewhere_gets_the_status_of_the_running_one(made, placed, tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_text(placed.read_text())
    ((look, _),) = compare_experiments([copy], tmp_path / "data", tmp_path / "report", placed.parent)
    assert look.step == 2
    copy.write_text(yaml.safe_dump(made.document(alpha=0.2)))
    ((look, _),) = compare_experiments([copy], tmp_path / "data", tmp_path / "report", placed.parent)
    assert look.verdict == "invalid"  # the file is not the experiment that ran


def test_no_experiment_is_one_clear_line_and_exit_code_1(tmp_path):
    done = emberline("compare", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr


def test_no_data_is_no_error(made, tmp_path):
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(made.document()))
    write_status(tmp_path, "trial", made.in_step(2, since=1e12).status)
    (tmp_path / "data").mkdir()
    done = emberline("compare", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "verdict: running" in done.stdout


@pytest.mark.parametrize("option", [(), ("--data", "nosuch")])
def test_a_folder_of_data_that_is_not_there_is_no_verdict(made, tmp_path, option):
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(made.document()))
    done = emberline("compare", path, *option, cwd=tmp_path)
    assert done.returncode == 1
    assert "the folder of exposures and outcomes is not there" in done.stderr
    assert "emberline up" in done.stderr
    assert not (tmp_path / "report").exists()


def test_a_file_that_is_not_there_is_named_before_the_folder_of_data_is(tmp_path):
    done = emberline("compare", "nope.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "nope.yaml: the experiment is not there" in done.stderr
    assert "data" not in done.stderr


def test_a_recipe_is_told_from_an_experiment(tmp_path):
    with pytest.raises(InvalidSetting, match="is 'a recipe'; an experiment is required") as refused:
        find_experiment(shipped("recipes") / "digits.yaml", tmp_path)
    assert refused.value.hint == f"emberline compare {shipped('recipes') / 'digits.experiment.yaml'}"


def test_plan_says_units_days_and_pairs(tmp_path):
    done = emberline("plan", "--baseline", "0.97", "--units-per-day", "1000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "days" in done.stdout
    assert re.search(r"looks at any time, at most\s+[\d,]+", done.stdout)
    assert "pairs certify disagreement" in done.stdout
    assert "is assumed" not in done.stdout
    assert "a control's rate of 0.95 is assumed; --baseline" in emberline("plan", cwd=tmp_path).stdout


def test_a_history_cut_off_in_mid_line_is_read_up_to_there_and_mended(made, tmp_path):
    from emberline.compare.assess import assess
    from emberline.compare.history import history_path, keep_look
    from emberline.compare.observations import Observations

    running = made.in_step(2)
    first = keep_look(tmp_path, assess(running, Observations(), 1001.0), None)
    with history_path(tmp_path, "trial").open("ab") as file:
        file.write(b'{"experiment": "tri')
    assert read_looks(tmp_path, "trial") == (first,)
    second = keep_look(tmp_path, assess(running, Observations(), 1100.0), first)
    assert read_looks(tmp_path, "trial") == (first, second)


def test_looks_get_sparser_as_a_step_grows_old(made, tmp_path):
    from emberline.compare.assess import assess
    from emberline.compare.history import keep_look
    from emberline.compare.observations import Observations

    running, last = made.in_step(2), None
    for second in range(1, 3000):
        last = keep_look(tmp_path, assess(running, Observations(), 1000.0 + second), last)
    assert len(read_looks(tmp_path, "trial")) < 150


def test_a_limits_name_lies_clear_of_its_line_and_of_the_band():
    points = [Point(at_s, -0.01, -0.03, 0.01) for at_s in (1.0, 60.0)]
    drawing = ET.fromstring(interval_chart("correct", points, -0.02, "margin"))
    (name,) = [one for one in drawing.findall(".//{*}text") if one.get("class") == "limit-label"]
    (band,) = drawing.findall(".//{*}polygon")
    highest = min(float(pair.split(",")[1]) for pair in band.get("points").split())
    assert name.text == "margin -0.02"
    assert float(name.get("y")) < highest
