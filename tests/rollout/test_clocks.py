"""Workers' processor time is read from this machine's own processes, and from nobody else's."""

import os

import pytest

from emberline.rollout.clocks import read_clocks


@pytest.fixture
def management(serve_json):
    """TorchServe's description of two versions: one whose worker is this very process, one whose worker has died."""
    pids = {"1.0": os.getpid(), "1.1": 2**22 + 1}

    def answer(request):
        version = request.path.rpartition("/")[2]
        worker = {"id": "9000", "status": "READY", "pid": pids[version]}
        facts = {"modelName": "digits", "modelVersion": version, "modelUrl": "x.mar", "workers": [worker]}
        return 200, [{**facts, "minWorkers": 1, "jobQueueStatus": {"pendingRequests": 0}}]

    return serve_json(answer)


def test_the_clock_of_a_living_worker_runs_and_a_dead_one_has_none(made, management):
    running = made.in_step(2)
    first = read_clocks(management, running)
    ((key, seconds),) = first.cpu_s.items()
    assert key.startswith(f"fp32/{os.getpid()}-")
    sum(number * number for number in range(3_000_000))
    assert read_clocks(management, running).cpu_s[key] > seconds
    assert first.on_gpu == {}


def test_workers_with_a_gpu_are_named(made, serve_json):
    worker = {"id": "9000", "status": "READY", "pid": os.getpid(), "gpu": True}
    facts = {"modelName": "digits", "modelVersion": "1.0", "modelUrl": "x.mar", "workers": [worker]}
    one = {**facts, "minWorkers": 1, "jobQueueStatus": {"pendingRequests": 0}}
    assert set(read_clocks(serve_json(lambda _request: (200, [one])), made.in_step(2)).on_gpu.values()) == {os.getpid()}


def test_workers_of_another_machine_are_not_looked_for_here(made):
    assert read_clocks("serve.models.svc:8086", made.in_step(2)) is None


def test_workers_that_both_variants_share_tell_no_ones_cost(made, management):
    shared = [{"name": "int8", "version": "1.0"}, {"name": "fp32", "version": "1.0", "control": True}]
    assert read_clocks(management, made.in_step(2, variants=shared)) is None
