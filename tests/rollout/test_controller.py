"""The real controller process on a real folder, with traffic as the router would leave it."""

import os
import random
import signal
import sys
import threading
import time

import pytest
import yaml

from emberline.cli.rollout import rollout
from emberline.errors import EmberlineError, InvalidSetting, MissingFile
from emberline.experiment import load_experiment, status_path
from emberline.process import start, wait_until
from emberline.rollout.audit import read_audit
from emberline.rollout.loop import Rollout
from emberline.rollout.requests import request_path
from emberline.rollout.retire import Servers
from emberline.rollout.store import FolderStore
from emberline.rollout.verb import run
from emberline.runlog import RunLog, read_events

RAMP = [
    {"shadow": 1.0, "until": {"disagreement_below": 0.05, "max_wait": "1h"}},
    {"weight": 2000, "until": {"min_units": 400, "max_wait": "1h"}},
    {"weight": 5000, "until": {"max_wait": "1h"}},
]


class World:
    """An experiments folder, a controller, and clients whose next units one sends by hand."""

    def __init__(self, made, folder, name="trial", **changes):
        self.made, self.folder = made, folder
        self.experiments, self.data = folder / "experiments", folder / "data"
        self.experiments.mkdir(parents=True, exist_ok=True)
        self.path = self.experiments / f"{name}.yaml"
        self.path.write_text(yaml.safe_dump(made.document(name, **{"ramp": RAMP, **changes})))
        self.traffic = made.Traffic(self.data)
        self.sent = 0
        self.child = None
        self.controller = None

    def controlled(self):
        """The controller inside this process, a round at a time: as real, and quicker than a process a test."""
        log = RunLog(self.folder / "rollout.jsonl", quiet=True)
        self.controller = Rollout(FolderStore(self.experiments), self.experiments, self.data, Servers(None, None), log)

    def start(self, *options):
        command = [sys.executable, "-m", "emberline.cli", "rollout", "--experiments", self.experiments]
        command += ["--data", self.data, "--interval", "0.1s", *options]
        self.child = start(command, name="rollout", log=self.folder / "rollout.log")

    @property
    def now(self):
        return load_experiment(self.path)

    @property
    def log(self):
        return (self.folder / "rollout.log").read_text()

    @property
    def said(self):
        return "\n".join(event["text"] for event in read_events(self.folder / "rollout.jsonl"))

    def send(self, units=400, **rates):
        experiment = self.now
        if experiment.status.phase != "Pending":
            self.traffic.send(experiment, units, first=self.sent, at=time.time(), **rates)
            self.sent += units

    def until(self, condition, timeout_s=60, **rates):
        """Sends traffic until the condition holds of the experiment."""

        def step():
            if self.child is not None and self.child.poll() not in (None, 0):
                raise AssertionError(self.log)
            if self.controller is not None:
                self.controller.round()
            experiment = self.now
            if condition(experiment):
                return experiment
            self.send(**rates)
            return None

        return wait_until(step, timeout_s, "the phase", every_s=0.2)


@pytest.fixture
def world(made, tmp_path):
    worlds = []

    def make(**changes):
        worlds.append(World(made, tmp_path, **changes))
        return worlds[-1]

    yield make
    for one in worlds:
        if one.child is not None:
            one.child.stop()


def phase(*names):
    return lambda experiment: experiment.status.phase in names


def steps(world):
    """Weights of the treatment in the order in which they were put in force."""
    treated = [line["status"]["weights"]["int8"] for line in read_audit(world.experiments, world.path.stem)]
    return [weight for index, weight in enumerate(treated) if index == 0 or weight != treated[index - 1]]


def test_a_folder_of_experiments_that_is_not_there_is_an_error_and_not_made(tmp_path):
    folder = tmp_path / "nosuch"
    with pytest.raises(MissingFile, match="the folder of experiments is not there"):
        run(
            folder,
            tmp_path,
            route=None,
            admin=None,
            management=None,
            interval="1s",
            until_done=True,
            namespace=None,
        )
    assert not folder.exists()


def test_a_folder_without_experiments_is_not_done_and_says_once_what_is_waited_for(world):
    here = world()
    here.path.unlink()
    here.controlled()
    assert [here.controller.round() for _ in range(3)] == [False] * 3
    said = [one["text"] for one in read_events(here.folder / "rollout.jsonl") if one["event"] == "say"]
    assert said == ["the experiments: there are none yet; one begins as soon as its file is there"]


def test_a_version_as_good_as_the_control_climbs_the_ramp_and_ships(world):
    here = world()
    here.start("--until-done")
    ended = here.until(phase("Shipped", "RolledBack", "Invalid"), disagree=0.01)
    assert ended.status.phase == "Shipped", ended.status.reason
    assert here.child.wait(20) == 0
    assert steps(here) == [0, 2000, 5000, 10_000]
    assert ended.status.weights == {"int8": 10_000, "fp32": 0}
    last = next(line for line in read_audit(here.experiments, "trial") if line["event"] == "ship")
    assert last["assessment"]["metrics"][0]["lower"] > -0.05  # the numbers that made the decision


def test_a_version_that_errs_is_rolled_back_with_the_guardrail_named(world):
    here = world()
    here.controlled()
    ended = here.until(phase("Shipped", "RolledBack", "Invalid"), disagree=0.01, errors=(0.3, 0.0))
    assert ended.status.phase == "RolledBack"
    assert "error" in ended.status.reason
    assert ended.status.weights == {"int8": 0, "fp32": 10_000}
    assert max(steps(here)) < 10_000


def test_no_traffic_at_all_is_inconclusive_and_the_control_keeps_everything(world):
    ramp = [{"weight": 1000, "until": {"min_units": 50, "max_wait": "0.5s"}}, {"weight": 5000}]
    here = world(ramp=ramp)
    here.controlled()
    here.until(lambda experiment: experiment.status.since > 0)  # the first exposures confirm the configuration
    wait_until(here.controller.round, 30, "the end")
    assert here.now.status.reason.startswith("inconclusive")
    assert here.now.weights == (0, 10_000)


def test_a_spec_changed_in_mid_flight_is_invalid(world):
    here = world()
    here.controlled()
    here.until(phase("Shadow"))
    document = yaml.safe_load(here.path.read_text())
    document["spec"]["alpha"] = 0.2
    here.path.write_text(yaml.safe_dump(document))
    assert here.until(phase("Invalid")).weights == (0, 10_000)


def test_versions_edited_in_mid_flight_stay_what_they_were_to_the_end(world):
    here = world()
    here.controlled()
    here.until(lambda experiment: experiment.status.step == 1 and experiment.status.since > 0)
    begun = here.now
    document = yaml.safe_load(here.path.read_text())
    control = {"name": "new", "version": "6.6", "control": True}
    document["spec"]["variants"] = [{"name": "other", "version": "7.7"}, control]
    here.path.write_text(yaml.safe_dump(document))
    here.controller.round()
    ended = here.now
    assert ended.status.phase == "Invalid"
    assert ended.spec == begun.spec
    assert ended.status.weights == {"int8": 0, "fp32": 10_000}
    assert ended.status.judged.config_version == begun.config_version
    assert "was changed while it ran (variants)" in ended.status.reason


def test_a_file_that_is_gone_for_good_ends_its_experiment_and_one_that_was_saved_anew_does_not(world):
    here = world()
    here.controlled()
    here.until(lambda experiment: experiment.status.step == 1 and experiment.status.since > 0)
    text = here.path.read_text()
    here.path.unlink()
    here.controller.round()
    assert "its file is gone" in here.said
    here.path.write_text(text)
    here.controller.round()
    assert here.now.status.phase == "Ramping"
    here.path.unlink()
    here.controller.round()
    here.controller.round()
    here.path.write_text(text)
    assert here.now.status.phase == "Invalid"
    assert here.now.weights == (0, 10_000)
    assert "file was taken away while it ran" in here.now.status.reason


def test_two_files_of_one_name_are_named_and_the_experiment_goes_on(world):
    here = world()
    here.controlled()
    here.until(lambda experiment: experiment.status.step == 1 and experiment.status.since > 0)
    copy = here.path.with_name("copy.yaml")
    copy.write_text(here.path.read_text().replace("1.1", "7.7"))
    here.controller.round()
    assert here.now.status.phase == "Ramping"
    assert "copy.yaml: metadata.name is 'trial'" in here.said
    assert "trial.yaml: metadata.name is 'trial'" in here.said


def test_a_force_of_a_changed_spec_is_not_carried_out_and_the_change_is_found(world):
    here = world()
    here.controlled()
    here.until(lambda experiment: experiment.status.step == 1 and experiment.status.since > 0)
    ask(here, "--pause", "trial", "--reason", "a look by eye")
    here.until(phase("Paused"))
    document = yaml.safe_load(here.path.read_text())
    document["spec"]["ramp"] = [{"weight": 5000, "until": {"max_wait": "1h"}}]  # shorter than where it stands
    here.path.write_text(yaml.safe_dump(document))
    rollout(experiments=here.experiments, force="trial", to="ship", reason="a hotfix")
    assert here.until(phase("Invalid")).weights == (0, 10_000)
    assert "force is not carried out: the experiment's spec was changed" in here.said


def test_a_damaged_audit_log_holds_up_its_own_experiment_alone(world):
    here = world()
    here.controlled()
    here.until(phase("Shadow"))
    log = here.experiments / "trial.audit.jsonl"
    log.write_bytes(b"junk" + log.read_bytes())
    here.controller.round()
    assert "trial.audit.jsonl: content is no JSON in line 1" in here.said


def test_pause_resume_and_abort_are_carried_out_and_audited(world):
    here = world()
    here.controlled()
    here.until(lambda experiment: experiment.status.phase == "Shadow" and experiment.status.since > 0, units=1)
    ask(here, "--pause", "trial", "--reason", "a look by eye")
    here.until(phase("Paused"))
    here.send(600)
    ask(here, "--resume", "trial", "--reason", "fine")
    here.until(phase("Ramping"))
    ask(here, "--abort", "trial", "--reason", "changed our minds")
    assert here.until(phase("RolledBack")).status.reason == "aborted: changed our minds"
    events = [line["event"] for line in read_audit(here.experiments, "trial")]
    assert [event for event in events if event in {"pause", "resume", "abort"}] == ["pause", "resume", "abort"]
    assert not request_path(here.experiments, "trial").exists()


def ask(here, action, name, _, reason):
    rollout(experiments=here.experiments, reason=reason, **{action.removeprefix("--"): name})


def test_a_request_without_a_reason_or_an_experiment_is_refused(world):
    here = world()
    with pytest.raises(InvalidSetting, match="--reason"):
        rollout(experiments=here.experiments, pause="trial")
    with pytest.raises(MissingFile):
        rollout(experiments=here.experiments, pause="another", reason="x")
    here.path.rename(here.experiments / "my.experiment.yaml")
    (here.experiments / "broken.yaml").write_text("junk: [")
    with pytest.raises(MissingFile, match=r"known here: trial, broken\.yaml cannot be read"):
        rollout(experiments=here.experiments, abort="my.experiment", reason="x")
    for target in (None, "1", "4", "soon"):
        with pytest.raises(InvalidSetting, match="--to"):
            rollout(experiments=here.experiments, force="trial", to=target, reason="x")


def test_a_forced_step_is_audited_with_its_reason(world):
    here = world()
    here.controlled()
    here.until(lambda experiment: experiment.status.phase == "Shadow" and experiment.status.since > 0, units=1)
    rollout(experiments=here.experiments, force="trial", to="ship", reason="a hotfix")
    assert here.until(phase("Shipped")).weights == (10_000, 0)
    last = read_audit(here.experiments, "trial")[-1]
    assert (last["event"], last["reason"]) == ("force", "forced: a hotfix")


def test_a_broken_experiment_file_does_not_hold_up_the_others(world):
    here = world()
    (here.experiments / "broken.yaml").write_text("kind: Experiment\n")
    here.controlled()
    here.until(phase("Ramping"))
    assert "broken.yaml" in here.said


def test_one_folder_has_one_controller_and_sigterm_ends_it_without_moving_traffic(world):
    here = world()
    here.start()
    before = here.until(lambda experiment: experiment.status.since > 0).status
    here.controlled()
    with pytest.raises(EmberlineError, match="another rollout moves traffic here"):
        here.controller.run(1.0, threading.Event())
    assert here.child.stop() == 0
    assert here.now.status.weights == before.weights


def test_killed_at_random_points_it_goes_on_and_never_moves_traffic_wrongly(world):
    here = world(ramp=[RAMP[0], RAMP[2]])
    chance = random.Random(4)
    kills = 0
    while here.now.status.phase not in {"Shipped", "RolledBack", "Invalid"}:
        assert kills < 40, here.log
        said = len(here.log) if kills else 0
        here.start()
        wait_until(lambda said=said: len(here.log) > said, 60, "its first words")
        deadline = time.monotonic() + chance.random() * 1.5
        while time.monotonic() < deadline:
            here.send(300, disagree=0.01)
        os.kill(here.child.pid, signal.SIGKILL)
        here.child.wait()
        kills += 1
        consistent(here)
    assert kills >= 2
    assert here.now.status.phase == "Shipped"
    assert steps(here) == [0, 5000, 10_000]


DYING = """
import os, signal, sys
from pathlib import Path
from emberline.rollout.loop import Rollout
from emberline.rollout.retire import Servers
from emberline.rollout.store import FolderStore
from emberline.runlog import RunLog

class Dying(FolderStore):
    def write_status(self, experiment, status):
        os.kill(os.getpid(), signal.SIGKILL)

folder, data = Path(sys.argv[1]), Path(sys.argv[2])
controller = Rollout(Dying(folder), folder, data, Servers(None, None), RunLog())
while True:
    controller.round()
"""


def test_killed_between_deciding_and_acting_it_carries_out_what_it_had_decided(world):
    here = world()
    here.controlled()
    here.until(lambda experiment: experiment.status.phase == "Shadow" and experiment.status.since > 0, units=1)
    here.send(600, disagree=0.01)
    before = here.now.status
    dying = start([sys.executable, "-c", DYING, here.experiments, here.data], name="dying", log=here.folder / "x.log")
    assert dying.wait(60) == 128 + signal.SIGKILL
    decided = read_audit(here.experiments, "trial")[-1]
    assert decided["event"] == "advance"
    assert here.now.status == before
    here.send(3000, disagree=0.9)  # what it would decide now is another thing
    here.controller.round()
    assert here.now.status.model_dump() == decided["status"]
    assert len(read_audit(here.experiments, "trial")) == len(
        {line["time"] for line in read_audit(here.experiments, "trial")}
    )
    consistent(here)


def test_a_name_begun_anew_never_shares_a_configuration_with_its_past(world):
    here = world()
    here.controlled()
    here.until(phase("Ramping"))
    past = {line["status"]["revision"] for line in read_audit(here.experiments, "trial")}
    status_path(here.experiments, "trial").unlink()
    here.controller.round()
    assert here.now.status.phase == "Shadow"
    assert here.now.status.revision not in past


def consistent(here):
    """The status in force is the last that was decided on, or the one before it; revisions never repeat a change."""
    lines = read_audit(here.experiments, "trial")
    decided = [line["status"] for line in lines]
    if status_path(here.experiments, "trial").is_file():
        assert here.now.status.model_dump() in decided[-2:]
    revisions = [status["revision"] for status in decided]
    assert revisions == sorted(revisions)
    weights = {status["revision"]: status["weights"] for status in decided}
    assert all(status["weights"] == weights[status["revision"]] for status in decided)


def test_one_model_has_one_experiment_at_a_time_and_the_next_begins_when_it_has_ended(world, made):
    here = world()
    (here.experiments / "zebra.yaml").write_text(yaml.safe_dump(made.document("zebra", ramp=RAMP)))
    here.controlled()
    here.until(phase("Shadow"))
    second = here.experiments / "zebra.yaml"
    here.controller.round()
    assert load_experiment(second).status.phase == "Pending"
    ask(here, "--abort", "trial", "--reason", "next")
    here.controller.round()
    here.controller.round()
    assert load_experiment(second).status.phase == "Shadow"
