"""The store against an API server in memory that speaks HTTP as the real one does: merge patches and status codes."""

import copy
import json

import pytest
from kubernetes import client

from emberline.errors import EmberlineError
from emberline.experiment import load_experiment
from emberline.rollout.kubernetes_store import ABORT, FORCE, PAUSED, KubernetesStore
from emberline.rollout.loop import Rollout
from emberline.rollout.retire import Servers
from emberline.runlog import RunLog

EXPERIMENTS = "/apis/emberline.dev/v1/namespaces/team/experiments"
MAP = "/api/v1/namespaces/team/configmaps/emberline-experiments"


def merge(target, patch):
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            target[key] = merge(target.get(key) or {}, value)
        else:
            target[key] = value
    return target


class Cluster:
    """The few resources that rollout touches, with what was asked of them."""

    def __init__(self, serve_json):
        self.resources, self.writes, self.forbidden = {}, [], False
        self.map = {"metadata": {"name": "emberline-experiments"}}
        self.address = serve_json(self.answer)

    def answer(self, request):
        path = request.path.partition("?")[0]
        if self.forbidden:
            return 403, {"reason": "Forbidden"}
        if request.method == "GET":
            return self.read(path)
        assert request.headers["content-type"] == "application/merge-patch+json"
        return self.patch(path, json.loads(request.content))

    def read(self, path):
        if path == EXPERIMENTS:
            return 200, {"items": list(self.resources.values())}
        return (200, self.map) if path == MAP else (404, {})

    def patch(self, path, body):
        self.writes.append(path)
        if path == MAP:
            return 200, merge(self.map, body)
        name = path.removeprefix(f"{EXPERIMENTS}/").removesuffix("/status")
        assert set(body) == {"status"}
        return 200, merge(self.resources[name], body)

    def apply(self, document, **annotations):
        document = copy.deepcopy(document)  # a cluster's resource is its own: a test that edits it edits no other's
        document["metadata"] |= {"annotations": annotations, "uid": "1", "resourceVersion": "7"}
        self.resources[document["metadata"]["name"]] = document

    def files(self):
        return self.map.get("data") or {}


@pytest.fixture
def cluster(serve_json):
    return Cluster(serve_json)


@pytest.fixture
def store(cluster):
    configuration = client.Configuration(host=f"http://{cluster.address}")
    configuration.retries = 0
    return KubernetesStore(client.ApiClient(configuration), "team")


def test_routers_get_the_same_files_that_a_folder_would_hold(made, cluster, store, tmp_path):
    cluster.apply(made.document())
    ((experiment,), wrong) = store.experiments()
    assert not wrong
    store.write_status(experiment, made.in_step(1).status)
    for name, content in cluster.files().items():
        (tmp_path / name).write_text(content)
    assert sorted(cluster.files()) == ["trial.status.json", "trial.yaml"]
    assert load_experiment(tmp_path / "trial.yaml") == store.experiments()[0][0]
    assert load_experiment(tmp_path / "trial.yaml").weights == (1000, 9000)


def test_a_round_without_news_writes_nothing(made, cluster, store):
    cluster.apply(made.document())
    store.experiments()
    cluster.writes.clear()
    store.experiments()
    assert cluster.writes == []


def test_a_map_that_fell_behind_is_put_right(made, cluster, store):
    cluster.apply(made.document())
    ((experiment,), _) = store.experiments()
    store.write_status(experiment, made.in_step(1).status)
    cluster.map["data"] = {"gone.yaml": "x"}  # as after a kill between the two writes, and a foreign hand
    store.experiments()
    assert sorted(cluster.files()) == ["trial.status.json", "trial.yaml"]


def test_an_experiment_that_cannot_be_read_is_reported_and_keeps_its_files(made, cluster, store):
    cluster.apply(made.document("good"))
    cluster.apply(made.document("bad"))
    store.experiments()
    cluster.resources["bad"]["spec"]["alpha"] = 7
    found, wrong = store.experiments()
    assert [experiment.name for experiment in found] == ["good"]
    assert "experiment/bad" in str(wrong[0])
    assert "bad.yaml" in cluster.files()


def test_a_right_that_the_role_lacks_is_named(cluster, store):
    cluster.forbidden = True
    with pytest.raises(EmberlineError, match="403") as caught:
        store.experiments()
    assert "role" in caught.value.hint


def test_the_controller_begins_an_experiment_in_the_cluster(made, cluster, store, tmp_path):
    cluster.apply(made.document())
    controller = Rollout(store, tmp_path, tmp_path / "data", Servers(None, None), RunLog(quiet=True))
    controller.round()
    assert cluster.resources["trial"]["status"]["phase"] == "Shadow"
    assert json.loads(cluster.files()["trial.status.json"])["shadow"] == 1.0


def test_an_edited_resource_moves_no_traffic_and_ends_with_the_control_it_began_with(made, cluster, store, tmp_path):
    cluster.apply(made.document())
    controller = Rollout(store, tmp_path, tmp_path / "data", Servers(None, None), RunLog(quiet=True))
    controller.round()
    before = cluster.files()["trial.yaml"]
    for variant in cluster.resources["trial"]["spec"]["variants"]:
        variant["version"] += ".9"
    (found,), _ = store.experiments()
    assert found.edited == ("variants",)
    controller.round()
    assert cluster.resources["trial"]["status"]["phase"] == "Invalid"
    assert cluster.files()["trial.yaml"] == before


def test_annotations_pause_resume_force_and_abort(made, cluster, store, tmp_path):
    document = made.document()
    document["status"] = made.in_step(1).status.model_dump()
    cluster.apply(document, **{PAUSED: "lunch"})
    controller = Rollout(store, tmp_path, tmp_path / "data", Servers(None, None), RunLog(quiet=True))

    def after_a_round():
        controller.round()
        return cluster.resources["trial"]["status"]["phase"]

    assert after_a_round() == "Paused"
    assert after_a_round() == "Paused"
    cluster.apply(cluster.resources["trial"])
    assert after_a_round() == "Ramping"
    cluster.apply(cluster.resources["trial"], **{FORCE: "3: known good"})
    assert after_a_round() == "Ramping"
    forced = cluster.resources["trial"]["status"]
    assert (forced["step"], forced["reason"]) == (2, "forced: known good")
    after_a_round()
    assert cluster.resources["trial"]["status"]["revision"] == forced["revision"], "it is there already"
    cluster.apply(cluster.resources["trial"], **{ABORT: "wrong model"})
    assert after_a_round() == "RolledBack"
    assert cluster.resources["trial"]["status"]["reason"] == "aborted: wrong model"
