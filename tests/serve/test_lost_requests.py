"""What clients of the router see while everything behind it is changed, killed or stopped: right answers, or 503."""

import importlib
import os
import signal
import sys

import pytest

from emberline.serve import management

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def bench(root):
    """The benchmark's own stack and clients, so that what is measured is what is tested."""
    folder = str(root / "benchmarks" / "serve")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("_stack")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def running(bench, tmp_path_factory):
    with bench.stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def has_two_workers(stack, *without):
    pids = stack.workers("1.0")
    return len(pids) == 2 and not set(without) & set(pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_nobody_notices_that_a_worker_was_killed_or_stopped(bench, running, number):
    victim = running.workers("1.0")[0]
    with bench.Load(running) as load:
        seen = bench.under_load(
            load, lambda: bench.kill(victim, number), lambda: has_two_workers(running, victim), "its replacement"
        )
    assert (seen["wrong"], seen["hung"], seen["error"], seen["refused"]) == (0, 0, 0, 0), seen


def test_nobody_notices_workers_scaled_up_and_down(bench, running):
    address = running.paper("serve")["management"]

    def scale():
        management.scale(address, bench.MODEL, "1.0", 3)
        management.shed(address, bench.MODEL, "1.0", 1, lambda pid: os.kill(pid, signal.SIGKILL))
        management.scale(address, bench.MODEL, "1.0", 2)
        return {}

    with bench.Load(running) as load:
        seen = bench.under_load(load, scale, lambda: has_two_workers(running), "two workers")
    assert (seen["wrong"], seen["hung"], seen["error"], seen["refused"]) == (0, 0, 0, 0), seen


def test_replaced_content_answers_as_the_old_or_the_new_and_then_as_the_new(bench, running):
    with bench.Load(running, expected={"1.0": {0.0, 500.0}}) as load:
        told = running.folder / "serve.log"
        for content in ("1.0-other", "1.0"):
            before = told.read_text().count("with other content now")
            seen = bench.under_load(
                load,
                lambda content=content: running.place("1.0", content=content) or {},
                lambda before=before: told.read_text().count("with other content now") > before,
                "the other content",
            )
            assert (seen["wrong"], seen["hung"], seen["error"], seen["refused"]) == (0, 0, 0, 0), seen
    with bench.Load(running) as load:  # which takes the old content's answers for wrong ones
        pass
    assert {one.outcome for one in load.asked} == {"right"}


def test_full_queue_is_told_at_once(bench, tmp_path):
    with (
        bench.stack(tmp_path, queue_size=4, batch_size=1) as running,
        bench.Load(running, connections=48, sleep_s=0.3, pause_s=0.2) as load,
    ):
        seen = bench.under_load(load, dict, lambda: len(load.asked) > 300, "300 answers")
    assert seen["refused"] > 0
    assert (seen["wrong"], seen["hung"], seen["error"]) == (0, 0, 0), seen
    assert seen["longest_s"] < bench.HUNG_S
