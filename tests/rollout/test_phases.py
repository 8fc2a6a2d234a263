"""The phase machine: pure, so each arrow is one call."""

import pytest

from emberline.compare.assessment import Assessment
from emberline.rollout.phases import confirmed, next_status, requested_status


def look(verdict="running", *, advance=False):
    return Assessment(
        experiment="trial", verdict=verdict, reasons=("why",), advance=advance, phase="Ramping", step=0, at=1.0
    )


def test_a_pending_experiment_enters_its_first_step_with_the_spec_it_has(made):
    bare = made.experiment()
    status = next_status(bare, look(), 5.0)
    assert (status.phase, status.step, status.revision, status.since) == ("Shadow", 0, 1, 0.0)
    assert status.weights == {"int8": 0, "fp32": 10_000}
    assert status.shadow == 1.0
    assert status.spec_digest == bare.spec_digest


def test_an_advance_enters_the_next_step_and_its_clock_has_not_begun(made):
    status = next_status(made.in_step(0), look(advance=True), 2000.0)
    assert (status.phase, status.step, status.revision, status.since) == ("Ramping", 1, 2, 0.0)
    assert status.weights == {"int8": 1000, "fp32": 9000}
    assert status.shadow == 0.0


def test_weights_are_in_the_order_of_the_variants(made):
    assert list(next_status(made.in_step(0), look(advance=True), 1.0).weights) == ["int8", "fp32"]


@pytest.mark.parametrize(
    ("verdict", "phase", "treated"),
    [
        ("ship", "Shipped", 10_000),
        ("stop", "RolledBack", 0),
        ("inconclusive", "RolledBack", 0),
        ("invalid", "Invalid", 0),
    ],
)
def test_a_verdict_ends_the_experiment_and_keeps_the_step_that_was_judged(made, verdict, phase, treated):
    running = made.in_step(2)
    status = next_status(running, look(verdict), 2000.0)
    assert (status.phase, status.revision) == (phase, 4)
    assert status.weights == {"int8": treated, "fp32": 10_000 - treated}
    assert status.reason == f"{verdict}: why"
    assert status.judged.config_version == running.config_version
    assert (status.judged.since, status.judged.until) == (1000.0, 2000.0)
    assert status.since == 2000.0  # of several ended ones, routers follow the last


@pytest.mark.parametrize("phase", ["Shipped", "RolledBack", "Invalid"])
@pytest.mark.parametrize("verdict", ["ship", "stop", "inconclusive", "invalid", "running"])
def test_the_end_is_the_end(made, phase, verdict):
    ended = made.experiment(status={**made.in_step(2).status.model_dump(), "phase": phase})
    assert next_status(ended, look(verdict, advance=True), 1.0) == ended.status


def test_running_changes_nothing(made):
    running = made.in_step(1)
    assert next_status(running, look(), 9.0) == running.status


def paused(made):
    running = made.in_step(1)
    status = requested_status(running, "pause", "lunch", 9.0)
    return made.experiment(status=status.model_dump()), running


def test_a_pause_holds_weights_and_configuration(made):
    held, running = paused(made)
    assert held.status.phase == "Paused"
    assert held.status.weights == running.status.weights
    assert held.config_version == running.config_version  # so nothing that was seen is lost
    assert held.window == running.window
    for verdict in ("ship", "inconclusive", "running"):
        assert next_status(held, look(verdict, advance=True), 9.0) == held.status


@pytest.mark.parametrize(("verdict", "phase"), [("stop", "RolledBack"), ("invalid", "Invalid")])
def test_a_paused_experiment_still_rolls_back(made, verdict, phase):
    assert next_status(paused(made)[0], look(verdict), 9.0).phase == phase


def test_resume_goes_on_where_it_was(made):
    held, running = paused(made)
    status = requested_status(held, "resume", "back", 10.0)
    assert status.model_copy(update={"reason": ""}) == running.status


def test_abort_gives_traffic_back_with_its_reason(made):
    status = requested_status(made.in_step(2), "abort", "wrong model", 10.0)
    assert (status.phase, status.weights["int8"], status.reason) == ("RolledBack", 0, "aborted: wrong model")


@pytest.mark.parametrize("action", ["pause", "abort"])
def test_a_request_twice_changes_nothing_more(made, action):
    first = made.experiment(status=requested_status(made.in_step(1), action, "x", 1.0).model_dump())
    assert requested_status(first, action, "y", 2.0) == first.status


def test_confirmation_starts_the_clock_under_the_same_configuration(made):
    waiting = made.experiment(status=next_status(made.experiment(), look(), 1.0).model_dump())
    assert waiting.window is None
    begun = made.experiment(status=confirmed(waiting.status, 77.0).model_dump())
    assert begun.config_version == waiting.config_version
    assert begun.window.since == 77.0


def test_a_force_enters_a_later_step_or_ships_and_never_goes_back(made):
    running = made.in_step(0)
    later = requested_status(running, "force", "we know better", 9.0, target="3")
    assert (later.step, later.weights["int8"], later.since) == (2, 5000, 0.0)
    assert later.reason == "forced: we know better"
    shipped = requested_status(running, "force", "known good", 9.0, target="ship")
    assert (shipped.phase, shipped.weights["int8"], shipped.reason) == ("Shipped", 10_000, "forced: known good")
    for target in ("1", "4", "0", "soon"):
        assert requested_status(running, "force", "x", 9.0, target=target) == running.status
    assert requested_status(made.in_step(2), "force", "x", 9.0, target="2") == made.in_step(2).status
    waiting = made.experiment()
    assert requested_status(waiting, "force", "x", 9.0, target="ship") == waiting.status
