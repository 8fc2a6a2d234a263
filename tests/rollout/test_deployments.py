"""A version is put in force without an experiment, and brought back; a real router follows, a loser is drained."""

import json
import sys
import threading

import httpx
import pytest
import yaml

from emberline.cli.rollout import rollout
from emberline.cli.status import status
from emberline.errors import InvalidOption, InvalidSetting, MissingFile
from emberline.experiment import Status, load_experiment, write_status
from emberline.process import free_port, start, wait_until
from emberline.rollout.audit import read_audit
from emberline.rollout.loop import Rollout
from emberline.rollout.requests import read_request
from emberline.rollout.retire import Servers
from emberline.rollout.store import FolderStore
from emberline.rollout.verb import run
from emberline.rollout.wishes import read_wishes
from emberline.runlog import RunLog, read_events


class TorchServe:
    """Predictions and management of one model, whose versions answer with their own path."""

    def __init__(self, serve_json):
        self.registered, self.busy, self.asked = {"1.0", "1.1"}, threading.Event(), threading.Event()
        self.address = serve_json(self.answer)

    def answer(self, request):
        version = request.path.rpartition("/")[2]
        if request.method == "DELETE":
            self.registered.discard(version)
            return 200, {"status": "unregistered"}
        if request.method == "POST":
            if self.busy.is_set():
                self.asked.set()
                wait_until(lambda: not self.busy.is_set(), 20, "the slow answer")
            return 200, {"label": "1", "score": 1.0, "path": request.path}
        if version not in self.registered:
            return 404, {"code": 404, "type": "ModelNotFoundException", "message": "gone"}
        queue = {"remainingCapacity": 100, "pendingRequests": 0}
        facts = {"modelName": "digits", "modelVersion": version, "modelUrl": "x.mar", "workers": []}
        return 200, [{**facts, "minWorkers": 1, "jobQueueStatus": queue}]


def controller(experiments, servers, route):
    folder = experiments.parent.parent
    log = RunLog(folder / "rollout.jsonl", quiet=True)
    return Rollout(FolderStore(experiments), experiments, folder / "data", servers, log, route)


class Here:
    def __init__(self, folder, torchserve):
        self.experiments, self.torchserve = folder / "state/experiments", torchserve
        self.experiments.mkdir(parents=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        upstreams = [part for v in ("1.0", "1.1") for part in ("--upstream", f"digits@{v}={torchserve.address}")]
        command = [sys.executable, "-m", "emberline.cli", "route", "--port", str(port), *upstreams]
        self.child = start([*command, "--default", "digits=1.0"], name="route", cwd=folder, log=folder / "route.log")
        paper = folder / "state/route.json"
        wait_until(lambda: paper.is_file() or self.child.poll() is not None, 60, "the router")
        self.servers = Servers(json.loads(paper.read_bytes())["admin"], torchserve.address)
        self.folder = folder
        self.begin()

    def begin(self):
        """A controller, as after a restart: it knows what is on disk."""
        self.controller = controller(self.experiments, self.servers, self.url)

    @property
    def said(self):
        return "\n".join(event["text"] for event in read_events(self.folder / "rollout.jsonl"))

    def ask(self):
        return httpx.post(f"{self.url}/predictions/digits", json={}, headers={"x-unit-id": "u"}, timeout=30)

    def until(self, condition):
        def round_and_look():
            self.controller.round()
            return condition()

        wait_until(round_and_look, 30, "the deployment")

    def want(self, **wish):
        rollout(experiments=self.experiments, reason="because", **wish)


@pytest.fixture
def here(tmp_path, serve_json):
    made = Here(tmp_path, TorchServe(serve_json))
    yield made
    made.child.stop(grace_s=20)


def test_a_version_is_deployed_and_the_one_before_drained_and_let_go(here):
    assert here.ask().headers["x-model-version"] == "1.0"
    here.torchserve.busy.set()
    slow = threading.Thread(target=here.ask)
    slow.start()
    assert here.torchserve.asked.wait(10)
    here.want(deploy="digits@1.1")
    here.until(lambda: httpx.get(f"{here.url}/predictions/digits").headers["x-config-version"] == "default-digits@1.1")
    here.controller.round()
    assert "1.0" in here.torchserve.registered, "its last request is still under way"
    here.begin()
    here.controller.round()
    here.torchserve.busy.clear()
    slow.join()
    here.until(lambda: here.torchserve.registered == {"1.1"})
    assert here.ask().json()["path"] == "/predictions/digits/1.1"
    assert here.controller.round(), "nothing is left to do"

    here.torchserve.registered.add("1.0")  # as `emberline serve` does with an archive that is put back
    here.want(rollback="digits")
    here.until(lambda: here.torchserve.registered == {"1.0"})
    assert here.ask().headers["x-model-version"] == "1.0"
    lines = read_audit(here.experiments, "digits.deployed")
    assert [(line["event"], line["version"], line["previous"], line["reason"]) for line in lines] == [
        ("deploy", "1.1", "1.0", "because"),
        ("confirmed", "1.1", "1.0", "because"),
        ("deploy", "1.0", "1.1", "because"),
        ("confirmed", "1.0", "1.1", "because"),
    ]


def test_a_version_that_was_let_go_is_not_rolled_back_to_and_the_one_that_answers_stays(here):
    here.want(deploy="digits@1.1")
    here.until(lambda: here.torchserve.registered == {"1.1"})
    here.want(rollback="digits")
    here.controller.round()
    assert "digits: 1.0 is not registered, so nothing was changed" in here.said
    assert here.ask().headers["x-model-version"] == "1.1"
    assert here.torchserve.registered == {"1.1"}
    assert read_audit(here.experiments, "digits.deployed")[-1]["event"] == "refused"


def test_the_same_deployment_asked_again_after_another_is_carried_out_again(here):
    here.want(deploy="digits@1.1")
    here.until(lambda: here.torchserve.registered == {"1.1"})
    first = json.loads((here.experiments / "digits.deployed.json").read_bytes())
    here.want(deploy="digits@1.1")
    here.controller.round()
    assert json.loads((here.experiments / "digits.deployed.json").read_bytes())["since"] > first["since"]


@pytest.mark.parametrize("known", ["admin", "route"])
def test_a_version_that_the_routers_lack_is_refused_and_what_was_in_force_stays(here, known):
    here.servers = Servers(here.servers.admin if known == "admin" else None, None)
    here.controller = controller(here.experiments, here.servers, here.url if known == "route" else None)
    path = here.experiments / "digits.deployed.json"
    here.want(deploy="digits@9.9")
    here.until(lambda: any(one["event"] == "refused" for one in read_audit(here.experiments, "digits.deployed")))
    assert not path.exists()
    with pytest.raises(InvalidOption, match="--rollback"):
        here.want(rollback="digits")
    here.want(deploy="digits@1.1")
    here.until(lambda: path.exists() and here.controller.round())
    assert here.ask().headers["x-model-version"] == "1.1"
    assert json.loads(path.read_bytes())["previous"] == "1.0"

    before = path.read_bytes()
    here.want(deploy="digits@9.9")
    here.until(lambda: read_wishes(here.experiments) == [] and path.read_bytes() == before)
    here.begin()
    here.until(here.controller.round)
    assert "the routers have no upstream of 9.9" in here.said
    lines = read_audit(here.experiments, "digits.deployed")
    assert [line["version"] for line in lines if line["event"] == "refused"] == ["9.9", "9.9"]
    for version in ("1.0", "1.1"):
        here.want(rollback="digits")
        here.until(lambda version=version: here.ask().headers["x-model-version"] == version)
        here.until(here.controller.round)


@pytest.fixture
def answering(tmp_path, serve_json):
    """A router that takes up what it is told to (`version`), and calls `meanwhile` at each question."""

    class Answering:
        experiments = tmp_path / "state/experiments"
        version, refused, meanwhile = "1.0", [], staticmethod(lambda: None)

        def answer(self, request):
            if request.path == "/readyz":
                return 200, {"ready": True, "refused": self.refused}
            self.meanwhile()
            return 405, {}, {"x-config-version": f"default-digits@{self.version}"}

    made = Answering()
    made.experiments.mkdir(parents=True)
    made.controller = controller(made.experiments, Servers(None, None), f"http://{serve_json(made.answer)}")
    return made


def test_what_routers_never_took_is_nothing_to_go_back_to(answering):
    path = answering.experiments / "digits.deployed.json"
    for version in ("1.1", "1.2"):
        rollout(experiments=answering.experiments, deploy=f"digits@{version}", reason="new")
        assert not answering.controller.round()
        told = json.loads(path.read_bytes())
        assert (told["version"], told["previous"]) == (version, "1.0")


def test_a_version_once_in_force_is_not_taken_back_when_a_router_comes_without_it(answering):
    path = answering.experiments / "digits.deployed.json"
    rollout(experiments=answering.experiments, deploy="digits@1.1", reason="new")
    answering.controller.round()
    answering.version = "1.1"
    wait_until(answering.controller.round, 20, "the deployment")
    before = path.read_bytes()
    answering.version, answering.refused = "1.0", ["digits.deployed.json"]
    again = controller(answering.experiments, Servers(None, None), answering.controller.route)
    assert not again.round()
    assert path.read_bytes() == before
    rollout(experiments=answering.experiments, rollback="digits", reason="back")
    answering.version = "1.0"
    again.round()
    assert json.loads(path.read_bytes())["version"] == "1.0"
    again.round()
    assert not [line for line in read_audit(answering.experiments, "digits.deployed") if line["event"] == "refused"]


def test_what_a_router_refused_before_is_not_held_against_the_next_version(answering):
    path = answering.experiments / "digits.deployed.json"
    answering.refused = [path.name]
    rollout(experiments=answering.experiments, deploy="digits@1.1", reason="new")
    for _ in range(2):
        assert not answering.controller.round()
    assert json.loads(path.read_bytes())["version"] == "1.1"
    answering.version, answering.refused = "1.1", []
    assert answering.controller.round()
    assert [line["event"] for line in read_audit(answering.experiments, "digits.deployed")] == ["deploy", "confirmed"]


def test_a_deployment_withdrawn_while_the_router_is_asked_is_not_carried_out(answering):
    rollout(experiments=answering.experiments, deploy="digits@1.1", reason="new")
    answering.meanwhile = lambda: rollout(experiments=answering.experiments, withdraw="digits", reason="wrong one")
    answering.controller.round()
    assert not (answering.experiments / "digits.deployed.json").exists()
    assert [line["event"] for line in read_audit(answering.experiments, "digits.deployed")] == ["withdrawn"]


def test_a_deployment_waits_for_an_experiment_and_then_takes_its_place(here, made):
    path = here.experiments / "trial.yaml"
    path.write_text(yaml.safe_dump(made.document(ramp=[{"weight": 5000, "until": {"max_wait": "1h"}}])))
    here.until(lambda: load_experiment(path).status.phase == "Ramping")
    here.want(deploy="digits@1.1")
    here.controller.round()
    assert not (here.experiments / "digits.deployed.json").exists()
    rollout(experiments=here.experiments, abort="trial", reason="no time")
    here.until(lambda: here.ask().headers["x-config-version"] == "default-digits@1.1")
    here.until(lambda: here.torchserve.registered == {"1.1"})


def test_what_cannot_be_deployed_is_told(here):
    for wish in ({"deploy": "digits"}, {"deploy": "digits@one"}, {"rollback": "digits"}):
        with pytest.raises(InvalidSetting):
            here.want(**wish)
    with pytest.raises(InvalidSetting, match="--reason"):
        rollout(experiments=here.experiments, deploy="digits@1.1")
    here.want(deploy="digits@7.7")
    here.controller.round()
    assert "digits: 7.7 is not registered, so nothing was changed" in here.said
    written = {"model": "digits", "version": "7.7", "since": 1.0, "reason": "by hand"}
    (here.experiments / "digits.deployed.json").write_text(json.dumps(written))
    wait_until(
        lambda: "digits.deployed.json: version is 'digits@7.7'" in (here.folder / "route.log").read_text(),
        10,
        "the refusal",
    )
    assert here.ask().headers["x-model-version"] == "1.0"


@pytest.fixture
def waiting(tmp_path, made):
    """A folder where a deployment waits for an experiment that goes on."""
    folder = tmp_path / "state/experiments"
    folder.mkdir(parents=True)
    (folder / "trial.yaml").write_text(yaml.safe_dump(made.document()))
    rollout(experiments=folder, deploy="digits@1.1", reason="faster")
    return folder


def test_status_tells_what_waits_and_a_withdrawn_deployment_waits_no_more(waiting, capsys):
    status(state=waiting.parent)
    told = "deployment digits 1.1: waits for experiment trial, which has the traffic  (faster)"
    assert told in capsys.readouterr().out
    rollout(experiments=waiting, withdraw="digits", reason="slower after all")
    status(state=waiting.parent)
    assert "deployment" not in capsys.readouterr().out
    assert read_wishes(waiting) == []
    (line,) = read_audit(waiting, "digits.deployed")
    assert (line["event"], line["version"], line["why"]) == ("withdrawn", "1.1", "slower after all")


def test_what_cannot_be_withdrawn_is_told_and_what_waits_stays(waiting):
    for wrong in (
        {"withdraw": "other", "reason": "no"},
        {"withdraw": "digits"},
        {"withdraw": "digits", "deploy": "digits@1.0", "reason": "no"},
    ):
        with pytest.raises(InvalidOption):
            rollout(experiments=waiting, **wrong)
    assert [wish.version for wish in read_wishes(waiting)] == ["1.1"]


def test_a_withdrawal_is_noted_before_the_request_goes(waiting):
    request = waiting / "digits.deploy.json"
    left = request.read_bytes()
    audit = waiting / "digits.deployed.audit.jsonl"
    audit.mkdir()
    with pytest.raises(IsADirectoryError):
        rollout(experiments=waiting, withdraw="digits", reason="wrong one")
    assert request.read_bytes() == left
    audit.rmdir()
    rollout(experiments=waiting, withdraw="digits", reason="wrong one")
    request.write_bytes(left)  # as a kill leaves it, between the line and the file
    assert read_wishes(waiting) == []
    rollout(experiments=waiting, deploy="digits@1.1", reason="the right one after all")
    assert [wish.reason for wish in read_wishes(waiting)] == ["the right one after all"]


def test_a_second_deployment_does_not_push_aside_the_one_that_waits(waiting):
    with pytest.raises(InvalidOption, match=r"1\.1 does \(faster\)") as told:
        rollout(experiments=waiting, deploy="digits@1.2", reason="faster still")
    assert "--withdraw digits" in told.value.hint
    assert [(wish.version, wish.reason) for wish in read_wishes(waiting)] == [("1.1", "faster")]


@pytest.mark.parametrize("action", ["pause", "resume", "abort", "force"])
def test_nothing_is_asked_of_an_experiment_that_has_ended(waiting, action):
    write_status(waiting, "trial", Status(phase="Shipped", step=1, weights={"int8": 10_000, "fp32": 0}))
    to = {"to": "ship"} if action == "force" else {}
    with pytest.raises(InvalidOption, match="an experiment that goes on") as told:
        rollout(experiments=waiting, **{action: "trial"}, reason="late", **to)
    assert "Shipped" in told.value.hint
    assert read_request(waiting, "trial") is None


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9901", "ftp://127.0.0.1", "http://127.0.0.1:9901,nothing", "http://", "http://a:99999"]
)
@pytest.mark.parametrize("option", ["admin", "route"])
def test_an_address_that_is_none_of_http_is_told_before_anything_starts(waiting, option, address):
    given = {"admin": None, "route": None, "management": None, option: address}
    with pytest.raises(InvalidOption, match="http://") as told:
        run(waiting, waiting, **given, interval="1s", until_done=True, namespace=None)
    assert told.value.hint


@pytest.mark.parametrize("address", ["localhost", "https://127.0.0.1:8086", "127.0.0.1:99999"])
def test_a_management_address_that_is_none_is_told_before_anything_starts(waiting, address):
    with pytest.raises(InvalidOption, match=r"--management: address is .*; HOST:PORT is required"):
        run(
            waiting, waiting, admin=None, route=None, management=address, interval="1s", until_done=True, namespace=None
        )


def test_nothing_is_asked_for_in_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MissingFile, match="the folder of experiments is not there"):
        rollout(experiments=tmp_path / "nosuch", deploy="digits@1.0", reason="because")
    assert not (tmp_path / "nosuch").exists()


def test_of_two_things_asked_for_at_once_none_is_dropped_in_silence(waiting):
    for more in ({"pause": "trial"}, {"to": "3"}, {"rollback": "digits"}):
        with pytest.raises(InvalidOption, match=f"--deploy without --{next(iter(more))}"):
            rollout(experiments=waiting, deploy="digits@1.0", reason="because", **more)
    assert read_request(waiting, "trial") is None


@pytest.mark.parametrize("asked", ["../x@1.1", "digits@one", "digits", "@1.1", "digits@"])
def test_what_names_no_model_and_version_is_wrong_usage(waiting, asked):
    with pytest.raises(InvalidOption, match="MODEL@VERSION") as told:
        rollout(experiments=waiting, deploy=asked, reason="because")
    assert told.value.hint


def test_status_looks_where_it_is_told_to(waiting, tmp_path, capsys):
    status(state=tmp_path, experiments=waiting)
    told = capsys.readouterr().out
    assert "experiment trial: Pending" in told
    assert "deployment digits 1.1: waits for experiment trial" in told


def test_no_experiment_is_forced_to_where_it_is(waiting):
    write_status(waiting, "trial", Status(phase="Ramping", step=1, weights={"int8": 1000, "fp32": 9000}))
    with pytest.raises(InvalidOption, match="a step after 2, where trial is"):
        rollout(experiments=waiting, force="trial", to="2", reason="again")
    rollout(experiments=waiting, force="trial", to="3", reason="on")
    assert read_request(waiting, "trial").target == "3"
