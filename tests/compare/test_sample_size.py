"""Source: the size of a 10 % relative lift on 5 % at 80 % power is 31,234 per arm in Fleiss' formula."""

from pathlib import Path

import numpy as np
import pytest

from emberline.cli.plan import plan as plan_verb
from emberline.compare.confidence_sequence import half_width
from emberline.compare.metrics import MIN_UNITS
from emberline.compare.plan import plan_experiment
from emberline.compare.sample_size import pairs_to_certify, units_at_any_look, units_for_margin, units_per_arm
from emberline.errors import InvalidOption, InvalidSetting


def test_ten_percent_lift_on_five_percent_needs_31234_units_per_arm():
    assert units_per_arm(0.05, 0.055) == 31_234


def test_equal_rates_have_no_size():
    with pytest.raises(ValueError, match="infinitely many"):
        units_per_arm(0.05, 0.05)


def test_a_small_treatment_arm_needs_more_units_in_all():
    assert units_for_margin(0.03, 0.02, 0.1) > 2.5 * units_for_margin(0.03, 0.02, 0.5)


def test_the_planned_cap_decides_with_the_promised_power():
    variance, distance = 0.05 * 0.95, 0.01
    units = units_at_any_look(variance, distance, 0.5, tuned_to=1500)
    half = half_width(4 * variance / units, units, alpha=0.05, planned_units=1500)
    rng = np.random.default_rng(0)
    estimates = rng.normal(distance, np.sqrt(4 * variance / units), 4000)
    assert (estimates - half > 0).mean() == pytest.approx(0.8, abs=0.03)


def test_pairs_for_a_shadow_grow_with_the_expected_disagreement():
    assert pairs_to_certify(0.01, 0.001) < pairs_to_certify(0.01, 0.005) < pairs_to_certify(0.01, 0.008)


def plan(experiment, **changes):
    options = {"baseline": 0.9, "difference": 0.0, "deviation": None, "power": 0.8, "expected_disagreement": 0.01}
    return plan_experiment(experiment, **{**options, **changes})


def test_a_plan_covers_the_last_step_and_the_shadow(made):
    planned = plan(made.experiment())
    assert planned.fixed_units == units_for_margin(0.09, 0.05, 0.5)
    assert planned.cap_units > planned.fixed_units == planned.best_units
    assert planned.pairs == ((0.05, pairs_to_certify(0.05, 0.01)),)


def test_a_planned_decision_is_advised_to_end_at_the_most_units(made):
    primary = {"metric": "correct", "margin": -0.05, "decision": "planned"}
    planned = plan(made.experiment(primary=primary, planned_units=100))
    assert planned.best_units == planned.cap_units


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"difference": -0.05}, "--difference"),
        ({"difference": -0.05 - 1e-11}, "--difference"),  # more units than there are people
        ({"expected_disagreement": 0.05 - 1e-13}, "--disagreement"),
        ({"difference": float("nan")}, "--difference"),
        ({"difference": float("inf")}, "--difference"),
        ({"difference": 0.2}, "--difference"),  # a rate of 1.1
        ({"baseline": 1.0}, "--baseline"),
        ({"power": 1.0}, "--power"),
        ({"baseline": float("nan")}, "--baseline"),
        ({"deviation": 2.0}, "--deviation"),
        ({"expected_disagreement": 0.05}, "--disagreement"),
        ({"expected_disagreement": -0.1}, "--disagreement"),
        ({"expected_disagreement": float("nan")}, "--disagreement"),
    ],
)
def test_what_cannot_be_planned_names_the_option(made, changes, key):
    with pytest.raises(InvalidSetting) as caught:
        plan(made.experiment(), **changes)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"units_per_day": -5.0}, "--units-per-day"),
        ({"units_per_day": float("nan")}, "--units-per-day"),
        ({"data": Path("nosuch")}, "--data"),
    ],
)
def test_the_verb_refuses_what_no_plan_can_use_with_a_hint(options, key):
    with pytest.raises(InvalidOption) as caught:
        plan_verb(**options)
    assert caught.value.key == key
    assert caught.value.hint


def test_a_ratio_is_planned_by_the_deviation_of_its_linearised_value_and_by_nothing_else(made):
    ratio = made.experiment(primary={"metric": "correct", "kind": "ratio", "per": "requests", "margin": -0.05})
    with pytest.raises(InvalidOption, match="--deviation is not given; the standard deviation of a unit's linear"):
        plan(ratio)
    mean = made.experiment(primary={"metric": "correct", "kind": "mean", "margin": -0.05})
    assert plan(ratio, deviation=2.0).cap_units == plan(mean, deviation=2.0).cap_units


def test_no_plan_is_so_small_that_a_variant_could_not_show_an_interval(made):
    planned = plan(made.experiment(), baseline=0.1, difference=0.9)
    assert planned.fixed_units == planned.cap_units == 2 * MIN_UNITS
