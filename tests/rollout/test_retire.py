"""The loser's end: an order of questions to Envoy and TorchServe, here answered by a server that remembers them."""

import pytest

from emberline.rollout.retire import Servers, retire, uses


class TorchServe:
    """Management of one model with one version, and Envoy's statistics, as far as they are asked."""

    def __init__(self, serve_json):
        self.registered, self.pending, self.active, self.deleted = True, 0, 0, []
        self.told = "trial-9-0"
        self.address = serve_json(self.answer)
        self.servers = Servers(f"http://{self.address}", self.address)

    def answer(self, request):
        if request.method == "DELETE":
            self.deleted.append(request.path)
            self.registered = False
            return 200, {"status": "unregistered"}
        if request.path.startswith("/stats"):
            name = "cluster.trial/fp32@1.0.upstream_rq_active"
            return 200, {"stats": [{"name": name, "value": self.active}]}
        if request.path.startswith("/config_dump"):
            return 200, {"configs": [{"header": {"key": "x-config-version", "value": self.told}}]}
        if not self.registered:
            return 404, {"code": 404, "type": "ModelNotFoundException", "message": "gone"}
        queue = {"remainingCapacity": 100, "pendingRequests": self.pending}
        version = {"modelName": "digits", "modelVersion": "1.0", "modelUrl": "digits-1.0.mar"}
        return 200, [{**version, "workers": [], "minWorkers": 1, "jobQueueStatus": queue}]


@pytest.fixture
def torchserve(serve_json):
    return TorchServe(serve_json)


def ended(made, phase, name="trial"):
    status = made.in_step(2, name=name).status.model_dump()
    treated = 10_000 if phase == "Shipped" else 0
    return made.experiment(name, {**status, "phase": phase, "weights": {"int8": treated, "fp32": 10_000 - treated}})


def test_the_loser_is_unregistered_once_nothing_is_left_for_it(made, torchserve):
    shipped = ended(made, "Shipped")
    torchserve.active = 2
    assert retire(shipped, [shipped], torchserve.servers)[0] == "draining"
    assert torchserve.deleted == []
    torchserve.active = 0
    assert retire(shipped, [shipped], torchserve.servers)[0] == "unregistered"
    assert torchserve.deleted == ["/models/digits/1.0"]
    assert retire(shipped, [shipped], torchserve.servers)[0] == "unregistered"  # done already counts as done
    assert len(torchserve.deleted) == 1


def test_a_version_that_is_rolled_back_stays_for_a_look_at_it(made, torchserve):
    back = ended(made, "RolledBack")
    assert retire(back, [back], torchserve.servers)[0] == "kept"
    assert torchserve.deleted == []


def test_a_version_that_competed_with_itself_stays_registered(made, torchserve):
    shared = [{"name": "int8", "version": "1.0"}, {"name": "fp32", "version": "1.0", "control": True}]
    status = ended(made, "Shipped").status.model_dump()
    digest = made.experiment("trial", variants=shared).spec_digest
    shipped = made.experiment("trial", {**status, "spec": None, "spec_digest": digest}, variants=shared)
    assert retire(shipped, [shipped], torchserve.servers)[0] == "kept"
    assert torchserve.deleted == []


def test_without_a_management_address_nothing_is_unregistered(made):
    shipped = ended(made, "Shipped")
    assert retire(shipped, [shipped], Servers(None, None))[0] == "kept"


def test_a_version_that_another_experiment_uses_is_kept(made, torchserve):
    shipped, other = ended(made, "Shipped"), made.in_step(1, name="other")
    assert retire(shipped, [shipped, other], torchserve.servers)[0] == "kept"
    assert torchserve.deleted == []


def test_an_ended_experiment_uses_only_the_version_that_it_sends_traffic_to(made):
    assert uses(ended(made, "Shipped"), "digits", "1.1")
    assert not uses(ended(made, "Shipped"), "digits", "1.0")
    assert uses(ended(made, "RolledBack"), "digits", "1.0")
    assert not uses(ended(made, "Shipped"), "another", "1.1")


def test_a_version_that_units_in_a_holdout_or_outside_of_a_slice_get_stays(made, torchserve):
    shipped = ended(made, "Shipped")
    torchserve.told = "trial-9-0, default-digits@1.0"
    how, why = retire(shipped, [shipped], torchserve.servers)
    assert how == "kept"
    assert "holdout" in why
    torchserve.told = "trial-9-0"
    sliced = made.experiment(status=shipped.status.model_dump(), layer={"name": "ranking", "buckets": [0, 5000]})
    assert retire(sliced, [sliced], torchserve.servers)[0] == "kept"
    assert torchserve.deleted == []
