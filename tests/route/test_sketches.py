"""Sketches add up: in any order, with nothing, and over replicas to what one pass gives."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("datasketches")
pytest.importorskip("rbloom")

from emberline.exposure import hash_unit
from emberline.route.sketches import Sketch, merged

UNITS = [hash_unit(b"k" * 32, f"u{n}") for n in range(3000)]
ROWS = st.lists(st.tuples(st.integers(0, 2999), st.floats(0.125, 8192.0, width=32)), max_size=80)


def of(*parts: list) -> Sketch:
    """One pass over all parts."""
    made = Sketch()
    for part in parts:
        for number, latency_ms in part:
            made.add(UNITS[number], latency_ms)
    return made


def union(*sketches: Sketch) -> Sketch:
    made = Sketch()
    for sketch in sketches:
        made.merge(sketch)
    return made


def told(sketch: Sketch) -> tuple:
    """What it says; REQ keeps all values while they are this few, so its answers are exact here."""
    quantiles = tuple(sketch.latency_ms(share) for share in (0.1, 0.5, 0.9, 0.99, 1.0))
    counts = tuple(int(sketch.counts.get_estimate(unit)) for unit in UNITS[:200])
    firsts = tuple(unit in sketch.seen for unit in UNITS[:200])
    return round(sketch.units, 6), sketch.requests, quantiles, counts, firsts


@settings(max_examples=30, deadline=None)
@given(ROWS, ROWS, ROWS)
def test_merging_is_associative_and_commutative_with_an_identity_and_equals_one_pass(a, b, c):
    left = union(union(of(a), of(b)), of(c))
    right = union(of(a), union(of(b), of(c)))
    assert told(left) == told(right) == told(union(of(c), of(b), of(a)))
    assert told(left) == told(union(of(a, b, c)))
    assert told(union(of(a), Sketch())) == told(union(Sketch(), of(a))) == told(union(of(a)))


@settings(max_examples=15, deadline=None)
@given(ROWS)
def test_what_is_read_back_is_what_was_written(rows):
    back = Sketch.load(orjson.loads(orjson.dumps(of(rows).dump())))
    assert told(back)[:4] == told(union(of(rows)))[:4]


def test_many_units_and_a_heavy_one_over_four_replicas():
    replicas = [Sketch() for _ in range(4)]
    for number, unit in enumerate(UNITS * 3):
        replicas[number % 4].add(unit, float(number % 1000))
        if number % 10 == 0:
            replicas[number % 3].add(UNITS[7], 1.0)
    whole = union(*replicas)
    assert whole.units == pytest.approx(3000, rel=0.05)
    assert whole.requests == 9000 + 900
    assert whole.latency_ms(0.999) == pytest.approx(998, abs=5)
    assert whole.heaviest(1)[0][0] == UNITS[7]


def test_routers_leave_what_the_live_page_merges(start_router):
    router = start_router("--sketches", weight=5000)
    answers = router.ask([(f"u{n % 50}", {"n": n}) for n in range(400)])
    router.await_rows(400)
    version = answers[0].headers["x-config-version"]
    assert router.stop() == 0
    found = merged(router.folder / "data/sketches", "digits-int8", version)
    assert sum(sketch.requests for sketch in found.values()) == 400
    assert sum(sketch.units for sketch in found.values()) == pytest.approx(50, abs=1)
