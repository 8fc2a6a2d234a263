"""A simulation's schedule depends on its seed alone, and keeps its rate."""

from dataclasses import replace

import pytest

from emberline.simulate.run import body_of
from emberline.simulate.traffic import Population, schedule

POPULATION = Population(seed=3, rate=100, num_units=50, duration_s=20, label_delay_s=1)


def test_equal_seeds_give_equal_schedules_and_others_do_not() -> None:
    first, again = list(schedule(POPULATION, 10)), list(schedule(POPULATION, 10))
    assert first == again
    assert first != list(schedule(replace(POPULATION, seed=4), 10))


def test_arrivals_keep_the_rate_and_end_in_time() -> None:
    asks = list(schedule(POPULATION, 10))
    assert len(asks) == pytest.approx(2000, rel=0.1)
    assert asks[-1].at_s < 20
    assert [ask.at_s for ask in asks] == sorted(ask.at_s for ask in asks)


def test_every_unit_and_row_is_asked_for() -> None:
    asks = list(schedule(POPULATION, 10))
    assert {ask.row for ask in asks} == set(range(10))
    assert len({ask.unit for ask in asks}) == 50


def test_one_image_is_sent_as_its_bytes_and_anything_else_as_json() -> None:
    assert body_of({"image": b"\x89PNG..."}) == (b"\x89PNG...", "image/png")
    assert body_of({"image": b"\xff\xd8.."}) == (b"\xff\xd8..", "image/jpeg")
    assert body_of({"x": [1, 2]}) == (b'{"x":[1,2]}', "application/json")
