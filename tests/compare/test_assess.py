"""From observations to verdicts; pure, so numbers are given by hand."""

from dataclasses import replace

import pytest

from emberline.compare.assess import assess
from emberline.compare.moments import Moments
from emberline.compare.observations import Arm, Observations
from emberline.compare.table import headline, weight_heading
from emberline.compare.validity import may_be_a_rate
from emberline.rollout.phases import leave


def rate(successes, units):
    share = successes / units
    return Moments(units, share, units * share * (1 - share))


def arm(units, *, correct=0.9, error=0.0, slow=0.0):
    metrics = {"correct": correct, "error": error, "latency_ms > 50": slow}
    return Arm(units, units, 0, {key: rate(round(share * units), units) for key, share in metrics.items()})


def both(treatment, control, **extra):
    return Observations({"int8": treatment, "fp32": control}, **extra)


def test_as_good_as_the_control_ships_when_the_interval_lies_above_the_margin(made):
    look = assess(made.in_step(2), both(arm(5000), arm(5000)), 1100.0)
    assert look.verdict == "ship"
    assert look.metrics[0].lower > -0.05


def test_an_interval_of_rates_ends_where_differences_of_rates_do(made):
    low, high = (assess(made.in_step(2), both(arm(60, correct=x), arm(60, correct=1 - x)), 1100.0) for x in (0.0, 1.0))
    assert low.metrics[0].lower == -1.0 < low.metrics[0].upper
    assert high.metrics[0].upper == 1.0 > high.metrics[0].lower
    assert (low.metrics[0].side, high.metrics[0].side) == ("below", "above")


@pytest.mark.parametrize("values", [Moments(500, 3.4, 500.0), Moments(500, -0.1, 1.0), Moments(500, 0.5, 500 * 0.26)])
def test_values_that_are_no_rates_make_a_rate_invalid(made, values):
    seen = both(replace(arm(500), metrics={**arm(500).metrics, "correct": values}), arm(500))
    look = assess(made.in_step(2), seen, 1100.0)
    assert look.verdict == "invalid"
    assert any(
        "correct is of kind: rate, and its values in int8 are not all from 0 to 1" in one for one in look.reasons
    )


def test_values_of_0_and_1_spread_as_wide_as_a_rate_can():
    assert may_be_a_rate(Moments.of(1000, 300.0, 1000 * 0.3 * 0.7))
    assert may_be_a_rate(Moments())


def test_superiority_is_not_claimed_without_a_difference(made):
    primary = {"metric": "correct", "margin": 0.0}
    look = assess(made.in_step(2, primary=primary), both(arm(5000), arm(5000)), 1100.0)
    assert look.verdict == "running"


def test_worse_than_the_margin_stops_at_the_last_step(made):
    look = assess(made.in_step(2), both(arm(5000, correct=0.8), arm(5000)), 1100.0)
    assert look.verdict == "stop"


def test_a_middle_step_does_not_ask_the_primary(made):
    look = assess(made.in_step(1), both(arm(1000, correct=0.5), arm(9000)), 1100.0)
    assert (look.verdict, look.advance) == ("running", True)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("harm", [{"error": 0.1}, {"slow": 0.3}])
def test_a_breached_guardrail_stops_in_any_step(made, step, harm):
    treated = 5000 if step == 2 else 1000
    look = assess(made.in_step(step), both(arm(treated, **harm), arm(10_000 - treated)), 1100.0)
    assert look.verdict == "stop"
    assert next(iter(harm)).replace("slow", "latency_ms") in look.reasons[0]


def test_a_middle_step_waits_for_its_units(made):
    look = assess(made.in_step(1), both(arm(60), arm(540)), 1100.0)
    assert (look.verdict, look.advance) == ("running", False)
    assert "600 of 1000 units seen" in look.reasons


def test_no_step_advances_while_a_guardrail_cannot_be_judged(made):
    ramp = [{"weight": 1000}, {"weight": 5000}]
    look = assess(made.in_step(0, ramp=ramp), both(arm(20), arm(180)), 1100.0)
    assert (look.verdict, look.advance) == ("running", False)


def test_a_step_of_time_alone_advances_when_it_is_over(made):
    ramp = [{"weight": 1000, "until": {"max_wait": "60s"}}, {"weight": 5000}]
    running = made.in_step(0, ramp=ramp)
    seen = both(arm(200), arm(1800))
    assert not assess(running, seen, 1059.0).advance
    assert assess(running, seen, 1060.0).advance
    assert assess(running, Observations(), 1060.0).verdict == "inconclusive"


@pytest.mark.parametrize("step", [0, 1, 2])
def test_no_decision_within_max_wait_is_inconclusive(made, step):
    look = assess(made.in_step(step), Observations(), 1000.0 + 3600)
    assert look.verdict == "inconclusive"
    assert look.reasons


def test_an_open_primary_runs_until_max_wait(made):
    seen = both(arm(200), arm(200))
    assert assess(made.in_step(2), seen, 1100.0).verdict == "running"
    assert assess(made.in_step(2), seen, 5000.0).verdict == "inconclusive"


def test_a_planted_sample_ratio_mismatch_is_invalid_and_never_stop(made):
    harmful = both(arm(4700, error=0.5, correct=0.1), arm(5300))
    look = assess(made.in_step(2), harmful, 1100.0)
    assert look.verdict == "invalid"
    assert "sample-ratio mismatch" in look.reasons[0]
    assert look.sample_ratio_p < 0.01


def test_units_in_both_arms_are_invalid(made):
    assert assess(made.in_step(2), both(arm(5000), arm(5000), crossed=1), 1100.0).verdict == "invalid"


def test_a_changed_spec_is_invalid(made):
    running = made.in_step(2)
    changed = made.experiment(status=running.status.model_dump(), alpha=0.2)
    look = assess(changed, both(arm(5000), arm(5000)), 1100.0)
    assert look.verdict == "invalid"
    assert "changed" in look.reasons[0]


def test_a_shortened_ramp_is_a_changed_spec_and_no_crash(made):
    status = made.in_step(2).status.model_dump()
    look = assess(made.experiment(status=status, ramp=[{"weight": 5000}]), Observations(), 1100.0)
    assert look.verdict == "invalid"


def test_a_treated_unit_in_a_shadow_is_invalid(made):
    assert assess(made.in_step(0), both(arm(3), arm(500)), 1100.0).verdict == "invalid"


def test_a_variant_nobody_knows_is_invalid(made):
    seen = Observations({"int8": arm(500), "fp32": arm(500), "fp16": arm(500)})
    assert assess(made.in_step(2), seen, 1100.0).verdict == "invalid"


def test_routed_requests_without_exposures_are_invalid(made):
    full = {"int8": 5000, "fp32": 5050}
    assert assess(made.in_step(2), both(arm(5000), arm(5000), routed=full), 1100.0).verdict == "ship"
    missing = {"int8": 5000, "fp32": 6000}
    assert assess(made.in_step(2), both(arm(5000), arm(5000), routed=missing), 1100.0).verdict == "invalid"


def test_a_shadow_advances_when_disagreement_is_certified_low(made):
    look = assess(made.in_step(0), Observations({"fp32": arm(500)}, pairs=500, disagreements=2), 1100.0)
    assert (look.verdict, look.advance) == ("running", True)


def test_a_shadow_stops_when_disagreement_is_certified_high(made):
    look = assess(made.in_step(0), Observations({"fp32": arm(500)}, pairs=500, disagreements=80), 1100.0)
    assert look.verdict == "stop"


def test_a_shadow_in_between_runs(made):
    look = assess(made.in_step(0), Observations({"fp32": arm(500)}, pairs=500, disagreements=25), 1100.0)
    assert (look.verdict, look.advance) == ("running", False)


def test_equal_observations_give_equal_assessments(made):
    running, seen = made.in_step(2), both(arm(500), arm(520))
    assert assess(running, seen, 1100.0) == assess(running, seen, 1100.0)


def test_guardrails_share_alpha_over_all_weighted_steps(made):
    look = assess(made.in_step(2), both(arm(500), arm(520)), 1100.0)
    assert [result.alpha for result in look.metrics] == [0.05, 0.0125, 0.0125]


def test_an_ended_experiment_tells_who_answers_now_beside_the_judged_steps_weights(made):
    running = made.in_step(2)
    shipped = running.model_copy(update={"status": leave(running, "Shipped", "ship: better", 1100.0)})
    look = assess(shipped, both(arm(5000), arm(5000)), 1200.0)
    assert headline(look) == "trial: Shipped after step 3 of 3, 100 s in; traffic now: int8 100 %, fp32 0 %"
    assert weight_heading(look) == "weight in step 3"
    assert [arm.weight for arm in look.arms] == [5000, 5000]
    going_on = assess(running, both(arm(5000), arm(5000)), 1100.0)
    assert headline(going_on) == "trial: Ramping, step 3 of 3, 100 s in"
    assert weight_heading(going_on) == "weight"


def test_an_inconclusive_end_says_so_beside_the_rollback(made):
    running = made.in_step(2)
    reason = "inconclusive: no decision within 600 s; correct: difference"
    ended = running.model_copy(update={"status": leave(running, "RolledBack", reason, 1600.0)})
    look = assess(ended, both(arm(200), arm(200)), 1700.0)
    assert "RolledBack after step 3 of 3 (inconclusive: no decision within 600 s)" in headline(look)


def test_an_interval_around_the_margin_is_said_to_decide_nothing(made):
    look = assess(made.in_step(2), both(arm(200), arm(200)), 1100.0)
    assert look.verdict == "running"
    assert "contains the margin -0.05, so nothing is decided" in look.reasons[0]
